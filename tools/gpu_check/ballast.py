"""Takes nearly all free memory of the first GPU, so that the next allocation of another process fails."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.gpu_check.job import CheckFailed

LEFT_BYTES = 512 << 20
"""For the first groups, and for what libraries load late; a group of 448 texts of 512 tokens needs more."""
_DRIVER = "libcuda.so.1"


@contextmanager
def ballast(device: str) -> Iterator[int]:
    """Hold all but LEFT_BYTES of the GPU's free memory; gives the bytes that are held, 0 on a CPU.

    Raises:
        CheckFailed: CUDA's driver refused a call.
    """
    if device != "cuda":
        yield 0
        return
    cuda = _Driver(ctypes.CDLL(_DRIVER))
    number = ctypes.c_int()
    cuda.call("cuInit", 0)
    cuda.call("cuDeviceGet", ctypes.byref(number), 0)
    context = ctypes.c_void_p()
    cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), number)
    try:
        cuda.call("cuCtxSetCurrent", context)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        # Only now, because the context takes memory itself.
        cuda.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        taken = max(0, free.value - LEFT_BYTES)
        held = ctypes.c_uint64()
        if taken:
            cuda.call("cuMemAlloc_v2", ctypes.byref(held), ctypes.c_size_t(taken))
        try:
            yield taken
        finally:
            if taken:
                cuda.call("cuMemFree_v2", held)
    finally:
        cuda.call("cuDevicePrimaryCtxRelease_v2", number)


class _Driver:
    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            raise CheckFailed(f"The memory of the GPU could not be taken: {name} gave error {status}.")

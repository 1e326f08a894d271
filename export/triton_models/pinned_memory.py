"""Page-locked memory: a GPU reads and writes it by itself, where other memory is copied once more.

ONNX Runtime has none for Python, so the pages of ordinary memory are registered with the driver.
"""

import ctypes
import mmap
from contextlib import suppress
from threading import Lock
from typing import Any

import numpy as np

_PORTABLE = 1
"""Page-locked for every context of this process."""


class PinnedMemory:
    """Arrays that a GPU can reach; safe for threads.

    Attributes:
        problem: why the arrays are ordinary ones, which are slower and give the same answers; empty if
            they are page-locked, or were meant to be ordinary.
    """

    def __init__(self, gpu: int | None, driver: Any = None) -> None:
        """Find the driver.

        Args:
            gpu: its number, as CUDA counts; None makes ordinary arrays, for a CPU.
            driver: the driver's library; None loads it.
        """
        self.problem = ""
        self._lock = Lock()
        self._arrays: list[Any] = []
        self._registered: list[int] = []
        self._context = ctypes.c_void_p()
        self._device = ctypes.c_int()
        self._driver: Any = None
        if gpu is None:
            return
        try:
            self._driver = driver or ctypes.CDLL("libcuda.so.1")
        except OSError:
            self.problem = "libcuda.so.1 cannot be loaded"
            return
        try:
            self._call("cuInit", 0)
            self._call("cuDeviceGet", ctypes.byref(self._device), gpu)
            # The context that ONNX Runtime works in, too.
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        except _DriverError as problem:
            self.problem, self._driver = str(problem), None

    def array(self, size: int, dtype: type[np.generic]) -> Any:
        """An array [size] of zeros; it stays until `close`."""
        length = max(1, size * np.dtype(dtype).itemsize)
        # Whole pages of its own: a page cannot be registered twice.
        found = np.frombuffer(mmap.mmap(-1, length), dtype, size)
        with self._lock:
            self._arrays.append(found)
            if self._driver is not None and not self.problem:
                try:
                    self._in_context("cuMemHostRegister_v2", *_pages(found), _PORTABLE)
                    self._registered.append(found.ctypes.data)
                except _DriverError as problem:
                    self.problem = str(problem)
        return found

    def close(self) -> None:
        """Let go of all arrays; no run uses them any more."""
        with self._lock:
            if self._driver is not None:
                with suppress(_DriverError):
                    for address in self._registered:
                        self._in_context("cuMemHostUnregister", ctypes.c_void_p(address))
                    self._call("cuDevicePrimaryCtxRelease_v2", self._device)
                self._driver = None
            self._registered.clear()
            self._arrays.clear()

    def _in_context(self, name: str, *arguments: Any) -> None:
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            self._call(name, *arguments)
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise _DriverError(f"{name} failed with CUDA error {status}")


class _DriverError(Exception):
    pass


def _pages(array: Any) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)

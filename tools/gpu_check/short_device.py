"""The encoder's device, in which memory runs out.

Copied into a model's folder as ``device.py``, where the real one is then ``real_device.py``. On a GPU, groups
may be larger than they were told, and every run gives its memory back, so the next one finds too little. On a
CPU an error stands in for that, with the words that CUDA has for it; all the rest is CUDA's part, on a CPU.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import real_device
from .real_device import Device  # type: ignore[import-not-found]  # noqa: F401 (the encoder imports it)

COUNT = Path(__file__).with_name("out_of_memory")
"""Grows by a byte each time that memory runs out."""
ON_CPU = os.environ.get("TRITONFLARE_DEVICE") == "cpu"
TEXTS, TOKENS = 512, 512 * 512
TOKENS_ON_CPU = 256


class ShortOfMemory(real_device.CudaDevice):  # type: ignore[misc]
    """CUDA's part of the encoder, with larger groups than it was told, and a count of such failures."""

    PROVIDER = "CPUExecutionProvider" if ON_CPU else "CUDAExecutionProvider"

    def __init__(self, model: Path, number: int, policy: Any, *rest: Any) -> None:
        larger = policy if ON_CPU else replace(policy, texts=TEXTS, tokens=TOKENS)
        super().__init__(model, number, larger, *rest)

    def run(self, inputs: Any, *, shrink: bool = False) -> Any:
        """As the device does it; see there."""
        try:
            texts, width = inputs["input_ids"].shape
            if ON_CPU and texts > 1 and texts * width > TOKENS_ON_CPU:
                raise RuntimeError("CUDA failure 2: out of memory")
            return super().run(inputs, shrink=True)
        except Exception as problem:
            if self.out_of_memory(problem):
                with COUNT.open("ab") as count:
                    count.write(b".")
            raise


def open_device(*arguments: Any) -> Any:
    """The device above, whatever the environment says."""
    real_device.CudaDevice = ShortOfMemory
    real_device.wanted_device = lambda _parameters: "cuda"
    return real_device.open_device(*arguments)

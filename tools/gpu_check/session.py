"""The served graph inside this process, as the encoder loads it: what the gate judges, and the ceiling."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.artefact import Logits
from export.rows import Ids
from export.triton_models.device import CudaDevice, DeviceError
from export.triton_models.text_queue import GpuGroupPolicy
from tools.gpu_check.job import CheckFailed

MOST_TOKENS = 65_536
"""Of one run; larger ones are no faster, and need memory that a small GPU lacks."""


class _OnCpu(CudaDevice):
    """CUDA's part of the encoder with ONNX Runtime's CPU provider."""

    PROVIDER = "CPUExecutionProvider"


class DeviceSession:
    """A graph of input_ids and attention_mask on a device; an `export.evaluation.runner.Runner`.

    Args:
        model: the ONNX file.
        device: ``cpu``, or ``cuda`` for the first GPU.

    Raises:
        CheckFailed: the device cannot be used.
    """

    def __init__(self, model: Path, device: str) -> None:
        kind = CudaDevice if device == "cuda" else _OnCpu
        try:
            self._device = kind(model, 0, GpuGroupPolicy(tokens=MOST_TOKENS))
        except DeviceError as error:
            raise CheckFailed(str(error)) from error

    def run(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """Logits FP32 [B, labels] of ids and mask INT64 [B, S]; classifiers read no types."""
        inputs = self._device.zeros(*ids.shape)
        inputs["input_ids"][:], inputs["attention_mask"][:] = ids, mask
        return np.array(self._device.run(inputs), np.float32)

"""The served graph inside this process, with the provider of the device: the reference, and the ceiling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from export.artefact import Logits
from export.rows import Ids
from tools.gpu_check.job import CheckFailed

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class DeviceSession:
    """A graph of input_ids and attention_mask, loaded on a device; an `export.evaluation.runner.Runner`.

    Args:
        model: the ONNX file.
        device: ``cpu`` or ``cuda``.
        threads: cores for one run on a CPU; 0 leaves the choice to ONNX Runtime.

    Raises:
        CheckFailed: ONNX Runtime took another device than the one that was asked for.
    """

    def __init__(self, model: Path, device: str, threads: int = 0) -> None:
        wanted = _PROVIDERS[device]
        if device == "cuda" and hasattr(ort, "preload_dlls"):
            # CUDA and cuDNN of the wheels, which the linker does not find by itself.
            ort.preload_dlls()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(model), options, providers=[wanted])
        provider = self._session.get_providers()[0]
        if provider != wanted:
            raise CheckFailed(f"ONNX Runtime took {provider} instead of {wanted}.")

    def run(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """Logits FP32 [B, labels] of ids and mask INT64 [B, S]; classifiers read no types."""
        (logits,) = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(logits, np.float32)

"""The served graph inside this process, as the encoder loads it: what the gate judges, and the ceiling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.artefact import Logits
from export.rows import Ids
from export.triton_models.device import CudaDevice, DeviceError
from export.triton_models.text_queue import GpuGroupPolicy
from tools.gpu_check.job import CheckFailed

MOST_TOKENS = 65_536
"""Of one run; the gate's batches are smaller."""


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
        self.provider = kind.PROVIDER
        self._place, self._model = device, str(model)
        try:
            self._device = kind(model, 0, GpuGroupPolicy(tokens=MOST_TOKENS))
        except DeviceError as error:
            raise CheckFailed(str(error)) from error

    def run(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """Logits FP32 [B, labels] of ids and mask INT64 [B, S]; classifiers read no types."""
        inputs = self._device.zeros(*ids.shape)
        inputs["input_ids"][:], inputs["attention_mask"][:] = ids, mask
        return np.array(self._device.run(inputs), np.float32)

    def on_device(self, ids: Ids, mask: Ids) -> Callable[[], None]:
        """A run of ids and mask INT64 [B, S] that are on the device already, and whose logits stay there."""
        binding = self._device.session.io_binding()
        for name, array in (("input_ids", ids), ("attention_mask", mask)):
            value = ort.OrtValue.ortvalue_from_numpy(array, self._place, 0)
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", self._place, 0)

        def run() -> None:
            self._device.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    def profile(self, ids: Ids, mask: Ids, prefix: Path) -> list[dict[str, Any]]:
        """Events of ONNX Runtime's profiler, of one run with the same options in a session of its own.

        Where a node runs depends on graph, provider and the session's options, not on the provider's.
        """
        options = self._device.session.get_session_options()
        options.enable_profiling, options.profile_file_prefix = True, str(prefix)
        session = ort.InferenceSession(self._model, options, providers=[self.provider], enable_fallback=0)
        session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return events

"""INT8 for other CPUs than the exporting one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.evaluation.host import describe_host
from export.quantise.schemes import FULL_RANGE, REDUCED_RANGE
from export.run import run_export
from tests.support.small_checkpoints import write_checkpoint
from tests.support.unchanged import plan_in


@pytest.mark.parametrize(("portable", "peak"), [(False, FULL_RANGE), (True, REDUCED_RANGE)])
def test_weights_use_half_their_range_on_a_cpu_with_vnni_if_others_will_serve_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None, portable: bool, peak: int
) -> None:
    here = describe_host()
    monkeypatch.setattr("export.run.describe_host", lambda: dataclasses.replace(here, vnni=True))
    write_checkpoint(tmp_path / "mood", labels=3)
    plan = dataclasses.replace(plan_in(tmp_path), portable=portable)
    run_export(plan)
    (file,) = tmp_path.glob("models/*_encoder_int8/1/model.onnx")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}
    layers = [found for name, found in tensors.items() if name.startswith("layer") and found.dtype == np.int8]
    assert max(np.abs(layer.astype(int)).max() for layer in layers) == peak

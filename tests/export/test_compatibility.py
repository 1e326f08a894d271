from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.json_format import MessageToDict

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.compatibility import BUILT, SIMULATED, TESTED, TORCH, UNSUPPORTED, as_markdown, cells, status
from export.errors import ExportError
from export.plan import ExportPlan
from export.reference import logits
from export.repository.inventory import read_config
from export.repository.write import ENCODER_SOURCES
from export.run import ExportResult, run_export
from export.tensorrt.check import check_graph
from tests.support.mixed_batches import mixed
from tests.support.small_checkpoints import LENIENT, write_checkpoint
from tests.support.triton_steps import answers, fake_pb_utils, load_step

LABELS = 3
BOUNDS = {"fp32": 2e-5, "fp16": 3e-2, "int8": 0.6}
WRITTEN = [cell for cell in cells() if cell[0] != TORCH]
ROWS = [[2, *(4 + i % 50 for i in range(length)), 3] for length in (1, 4, 20, 60)]


def export(tmp_path: Path, family: str, precision: str, target: str) -> ExportResult:
    source = write_checkpoint(tmp_path / "m", labels=LABELS, family=family)
    places = tmp_path / "models", tmp_path / "artefacts"
    plan = ExportPlan(
        source, *places, target=target, precision=precision, limits=LENIENT, timing=None, all_precisions=False
    )
    return run_export(plan)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("family", "precision", "target"), WRITTEN)
def test_every_cell_is_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, precision: str, target: str
) -> None:
    said = status(family, precision, target)
    if said == UNSUPPORTED:
        with pytest.raises(ExportError):
            export(tmp_path, family, precision, target)
        return
    if (precision, target) == ("int8", "tensorrt") and not importlib.util.find_spec("modelopt"):
        pytest.skip("nvidia-modelopt is not installed (extra: tensorrt)")
    result = export(tmp_path, family, precision, target)
    folder = tmp_path / "artefacts" / "local-m"
    if target == "tensorrt":
        assert said == BUILT
        assert result.kit is not None
        check_graph(onnx.load(result.kit / precision / "model.onnx"), LABELS)
        return
    assert said == (TESTED if target == "cpu" else SIMULATED)
    onnx.checker.check_model(onnx.load(folder / result.artefact / "model.onnx"))
    # What is meant for a GPU runs on ONNX Runtime's CPU provider as well, slowly.
    artefact = Artefact(folder / result.artefact / "model.onnx", LABELS)
    encoder = load_checkpoint(tmp_path / "m").encoder
    wanted = np.array([logits(encoder, row) for row in ROWS])
    assert np.abs(mixed(artefact, ROWS) - wanted).max() < BOUNDS[precision]
    if target == "cuda":
        monkeypatch.setenv("TRITONFLARE_DEVICE", "cpu")
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_pb_utils())
        (encoder_folder,) = (tmp_path / "models").glob(f"*_encoder_{precision}")
        assert np.abs(served(encoder_folder) - wanted).max() < BOUNDS[precision]


def served(encoder: Path) -> Any:
    """The logits of ROWS by the step as it was published, asked all at once in one request of each."""
    written = read_config(encoder)
    assert written is not None
    config = MessageToDict(written, preserving_proto_field_name=True)
    (output,) = config["output"]
    output["dims"] = [int(size) for size in output["dims"]]  # JSON has int64 as text, Triton has not
    model = load_step(ENCODER_SOURCES, encoder / "1", config)
    requests = [
        {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)} for row in ROWS
    ]
    try:
        responses = answers(model, *requests)
    finally:
        model.finalize()
    assert [response.error for response in responses] == [None] * len(ROWS)
    return np.concatenate([response.tensors["logits"] for response in responses])


def test_the_page_is_the_tables() -> None:
    page = Path(__file__).parents[2] / "docs" / "compatibility.md"
    assert page.read_text(encoding="utf-8") == as_markdown(), "run: make settings"

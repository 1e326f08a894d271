from __future__ import annotations

from pathlib import Path

import pytest

from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from tests.support.small_checkpoints import write_checkpoint
from tools.operator_profile import as_table, main, profile


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    graph = build_graph(load_checkpoint(write_checkpoint(folder / "m")).encoder, "fp32")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return folder / "model.onnx"


def test_every_operator_is_counted_with_its_time(model: Path) -> None:
    found = profile(model, 8, runs=3)
    nodes = {operator: count for operator, (_, count) in found.items()}
    assert nodes["LayerNormalization"] == 5
    assert nodes["Attention"] == 2
    spent = [microseconds for microseconds, _ in found.values()]
    assert spent == sorted(spent, reverse=True)
    assert spent[0] > 0


def test_the_table_sums_operators_that_only_some_lengths_have() -> None:
    table = as_table({8: {"Add": (2.0, 1)}, 9: {"MatMul": (7.0, 2), "Add": (3.0, 1)}})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert rows == [["`MatMul`", "2", "0", "7"], ["`Add`", "1", "2", "3"], ["all", "3", "2", "10"]]


def test_without_a_model_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "MODEL.onnx" in capsys.readouterr().err

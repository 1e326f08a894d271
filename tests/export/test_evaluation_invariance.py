from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.artefact import Artefact
from export.checkpoint import Checkpoint, load_checkpoint
from export.evaluation.gate import DEFAULT_LIMITS
from export.evaluation.invariance import (
    BATCH_SIZES,
    Invariance,
    InvarianceSettings,
    check_invariance,
    compositions,
    longest_allowed,
    pick_evenly,
)
from export.evaluation.runner import Runner
from export.graph.encoder import build_graph
from export.quantise.rewrite import quantise
from export.quantise.schemes import Tokenwise
from tests.support.small_checkpoints import POSITIONS, WORDS, write_checkpoint

SINGLE = "single_label_classification"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("small") / "model", labels=3))


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, len(WORDS), length).tolist() for length in rng.integers(2, 40, 150)]


def check(runner: Runner, rows: list[list[int]]) -> Invariance:
    return check_invariance(runner, rows, POSITIONS, SINGLE, InvarianceSettings(), lambda *_: None)


def write(checkpoint: Checkpoint, precision: str, file: Path) -> Path:
    model = build_graph(checkpoint.encoder, "fp16" if precision == "fp16" else "fp32")
    if precision == "int8":
        model = quantise(model, Tokenwise())
    file.write_bytes(model.SerializeToString())
    return file


def test_per_tensor_dynamic_quantisation_is_caught(
    checkpoint: Checkpoint, rows: list[list[int]], tmp_path: Path
) -> None:
    source = write(checkpoint, "fp32", tmp_path / "fp32.onnx")
    logging.disable(logging.WARNING)  # it recommends preprocessing, on the root logger
    try:
        quantize_dynamic(
            source,
            tmp_path / "int8.onnx",
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.disable(logging.NOTSET)
    found = check(Artefact(tmp_path / "int8.onnx", 3), rows)
    assert found.largest_shift > 100 * DEFAULT_LIMITS["int8"].neighbours
    assert found.flipped
    # Every kind of company gives it away, so none of them is there for show.
    assert all(each.largest_shift > DEFAULT_LIMITS["int8"].neighbours for each in found.tried)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_our_own_graphs_pass(
    checkpoint: Checkpoint, rows: list[list[int]], tmp_path: Path, precision: str
) -> None:
    found = check(Artefact(write(checkpoint, precision, tmp_path / "model.onnx"), 3), rows)
    assert found.largest_shift <= DEFAULT_LIMITS[precision].neighbours
    assert not found.flipped
    assert found.texts == len(rows) + 1


class FirstRowLooksAtTheLast:
    """Right unless the last text of the batch is a long one: the rarest of dependences."""

    def run(self, ids: Any, mask: Any, types: Any = None) -> Any:
        logits = np.tile(np.array([1, 0, 0], np.float32), (len(ids), 1))
        if len(ids) > 1 and mask[-1].sum() == POSITIONS:
            logits[0] = [0, 0.5, 0]
        return logits


def test_a_dependence_on_the_longest_text_alone_is_caught_and_located(rows: list[list[int]]) -> None:
    found = check(FirstRowLooksAtTheLast(), rows)
    assert [bool(each.flips) for each in found.tried] == [False, False, False, True, False]
    assert [len(rows[index]) for index in found.flipped] == [min(map(len, rows))]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(0, 1000))
def test_every_text_is_tried_and_no_index_is_out_of_range(lengths: list[int], seed: int) -> None:
    kinds = list(compositions([*lengths, 64], seed))
    for kind in kinds:
        assert all(0 <= index <= len(lengths) for batch in kind.batches for index in batch)
        assert all(1 <= len(batch) <= max(BATCH_SIZES) for batch in kind.batches)
    shuffled = [index for batch in kinds[0].batches for index in batch]
    assert sorted(shuffled) == list(range(len(lengths)))
    assert kinds == list(compositions([*lengths, 64], seed))


def test_the_default_number_of_texts_meets_every_batch_size() -> None:
    sizes = {len(batch) for batch in next(compositions([9] * 161, 0)).batches}
    assert sizes >= set(BATCH_SIZES)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 80))
def test_picked_texts_are_different_and_hold_the_shortest_and_the_longest(
    lengths: list[int], count: int
) -> None:
    picked = pick_evenly(lengths, count)
    assert len(set(picked)) == len(picked) == min(count, len(lengths))
    assert lengths[picked[0]] == min(lengths)
    if len(picked) > 1:
        assert lengths[picked[-1]] == max(lengths)


def test_the_longest_text_keeps_the_special_tokens_at_its_ends() -> None:
    assert longest_allowed([[2, 7, 3], [2, 8, 9, 3]], 10) == [2, 7, 8, 9, 7, 8, 9, 7, 8, 3]
    assert longest_allowed([[2, 3]], 5) == [2, 2, 3, 2, 3]

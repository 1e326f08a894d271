"""The encoder's device for CUDA on ONNX Runtime's CPU provider: answers, groups, order of runs."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from export.reference import logits as reference
from loadtest.golden import GOLDEN
from tests.support.cuda_steps import LABELS, Encoder, cuda_config, encoder, on_the_cpu, rows_of, write_graph
from tests.support.small_checkpoints import write_checkpoint
from tests.support.texts import CHECKPOINT

__all__ = ["encoder"]  # a fixture

BOUNDS = {"fp32": 2e-5, "fp16": 3e-2}


@pytest.fixture(params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


ROWS = rows_of(3, 60, 7, 8, 9, 31, 3, 64, 15, 16, 17, 40, 5, 6, 7, 33)


@pytest.mark.parametrize("family", ["distilbert", "bert", "roberta"])
def test_answers_are_the_references_alone_padded_and_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, family: str
) -> None:
    on_the_cpu(monkeypatch)
    weights = load_checkpoint(write_checkpoint(tmp_path / "m", labels=LABELS, family=family)).encoder
    wanted = np.array([reference(weights, row) for row in ROWS])
    encoder = Encoder(write_graph(tmp_path, precision, family), cuda_config())
    alone = np.concatenate([encoder.logits([row]) for row in ROWS])
    together = encoder.logits(ROWS)
    mixed = encoder.logits(ROWS[:5], [ROWS[5]], ROWS[6:])
    encoder.close()
    assert np.abs(alone - wanted).max() < BOUNDS[precision]
    assert len(np.unique(wanted.round(2), axis=0)) > len(ROWS) // 2  # no mix-up can hide
    for found in (together, mixed):
        assert np.abs(_probabilities(found) - _probabilities(alone)).max() <= 1e-3
        assert found.dtype == np.float32


def _probabilities(logits: Any) -> Any:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_a_rerankers_token_types_reach_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    source = write_checkpoint(tmp_path / "m", labels=1, family="bert")
    graph = build_graph(load_checkpoint(source, tmp_path / "work").encoder, "fp32", "fused")
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    encoder = Encoder(tmp_path / "model.onnx", cuda_config())
    assert "token_type_ids" in encoder.device.inputs
    row = rows_of(12)[0]
    plain, typed = (
        encoder.ask([row], types=[types])[0].tensors["logits"] for types in ([0] * 12, [0] * 6 + [1] * 6)
    )
    encoder.close()
    assert np.abs(plain - typed).max() > 1e-3


def test_groups_are_padded_to_multiples_of_8_within_the_models_limit(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, run = [], encoder.device.run

    def watched(inputs: Any, *, shrink: bool = False) -> Any:
        shapes.append(inputs["input_ids"].shape)
        assert all(tensor.flags.c_contiguous and tensor.dtype == np.int64 for tensor in inputs.values())
        return run(inputs, shrink=shrink)

    monkeypatch.setattr(encoder.device, "run", watched)
    encoder.logits(rows_of(3))
    encoder.logits(rows_of(9, 10))
    encoder.logits(rows_of(63))
    assert shapes == [(1, 8), (2, 16), (1, 64)]
    padding = encoder.threads.padding
    assert (padding.read, padding.computed) == (3 + 19 + 63, 8 + 32 + 64)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 1e-3)])
def test_the_bundled_models_answers_are_those_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, bound: float
) -> None:
    on_the_cpu(monkeypatch)
    lines = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    rows = [encoding.ids for encoding in tokenizer.encode_batch([line["text"] for line in lines])]
    graph = build_graph(load_checkpoint(CHECKPOINT).encoder, precision, "fused")
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    encoder = Encoder(tmp_path / "model.onnx", cuda_config(max_tokens="512"))
    found = encoder.logits(rows[:100], *([row] for row in rows[100:120]), rows[120:])
    encoder.close()
    wanted = np.array([line["logits"] for line in lines])
    assert len(lines) > 200
    assert np.abs(_probabilities(found) - _probabilities(wanted)).max() <= bound


class Gate:
    """In place of ``session.run_with_iobinding``: says how many runs are under way, and holds them."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.lock = threading.Lock()
        self.under_way = self.most = 0
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.entered.release()
        assert self.leave.acquire(timeout=600)
        self.session.run_with_iobinding(binding, options)
        with self.lock:
            self.under_way -= 1


def test_one_run_is_under_way_while_the_next_group_is_prepared(encoder: Encoder) -> None:
    rows = rows_of(5, 6, 20)
    wanted = encoder.logits(rows)
    gate = encoder.device.session = Gate(encoder.device.session)
    prepared: list[int] = []
    ready = threading.Semaphore(0)
    run = encoder.device.run

    def prepared_run(inputs: Any, *, shrink: bool) -> Any:
        prepared.append(len(inputs["input_ids"]))
        ready.release()
        return run(inputs, shrink=shrink)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder.device, "run", prepared_run)
        try:
            (first,) = encoder.send(rows[:2])
            assert gate.entered.acquire(timeout=60)
            (second,) = encoder.send(rows[2:])
            assert ready.acquire(timeout=60)
            assert ready.acquire(timeout=60)  # the second group, while the first one computes
            assert not gate.entered.acquire(timeout=0.2)  # and waits
            assert (prepared, gate.under_way) == ([2, 1], 1)
            assert first.answers.empty()
        finally:
            gate.leave.release(2)
        found = [request.answers.get(timeout=60)[0].tensors["logits"] for request in (first, second)]
    assert gate.most == 1
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-6)

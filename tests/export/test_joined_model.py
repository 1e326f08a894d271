"""Tokenizer and encoder in one step, outside Triton: it answers what the two steps answer in turn."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from export.repository.write import ENCODER_SOURCES, JOINED_SOURCES, TOKENIZER_SOURCES
from export.triton_models.pairs import NO_ROOM
from tests.support.small_checkpoints import write_checkpoint
from tests.support.triton_steps import (
    FakeRequest,
    answers,
    fake_pb_utils,
    load_step,
    pairs,
    strings,
    tensors,
    texts,
)

LIMIT = 16
LONG = "a b c " * 5_000
TEXTS = ["a b c", "", "a " * 40, "d", "b c d e f g h", LONG, "  ", "g a", "c d e f g h i j k l m n o p"]
PAIRS = [("a b", "c"), ("a", "b c d e f"), ("a " * 14, "b"), ("a", "b c " * 30), ("b", ""), ("a", LONG)]


@pytest.fixture(autouse=True)
def _pb_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_pb_utils())


def checkpoint(folder: Path, *, reranker: bool, typed: bool = True) -> Path:
    """A folder with ``tokenizer.json`` and ``model.onnx``."""
    labels, family = (1, "bert") if reranker else (3, "distilbert")
    folder = write_checkpoint(folder, labels=labels, family=family)
    loaded = load_checkpoint(folder, folder / "work")
    (folder / "tokenizer.json").write_bytes(loaded.tokenizer_file.read_bytes())
    weights = loaded.encoder if typed else loaded.encoder.without_types()
    (folder / "model.onnx").write_bytes(build_graph(weights, "fp32").SerializeToString())
    return folder


def joined(folder: Path, *, reranker: bool = False) -> Any:
    outputs = [*tensors("logits", dims=1 if reranker else 3), *tensors("token_count", dims=1)]
    config = {
        "input": tensors("QUERY", "TEXT") if reranker else tensors("TEXT"),
        "output": outputs,
        "parameters": strings({"max_tokens": str(LIMIT), "pad_id": "0"}),
        "instance_group": [{"count": 1}],
    }
    return load_step(JOINED_SOURCES, folder, config)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return joined(checkpoint(tmp_path / "m", reranker=False))


def through_two_steps(
    folder: Path, request: Mapping[str, Any], *, reranker: bool, typed: bool
) -> tuple[Any, Any]:
    """Logits and counts of a request that the tokenizer and then the encoder answer."""
    ids = ("input_ids", "attention_mask", *(("token_type_ids",) if typed else ()))
    parameters = strings({"max_tokens": str(LIMIT), "pad_id": "0"})
    inputs = tensors("QUERY", "TEXT") if reranker else tensors("TEXT")
    first = {"input": inputs, "output": tensors(*ids, "token_count"), "parameters": parameters}
    second = {
        "input": tensors(*ids),
        "output": tensors("logits", dims=1 if reranker else 3),
        "instance_group": [{"count": 1}],
    }
    (tokens,) = answers(load_step(TOKENIZER_SOURCES, folder, first), request)
    (found,) = answers(load_step(ENCODER_SOURCES, folder, second), tokens.tensors)
    return found.tensors["logits"], tokens.tensors["token_count"]


@pytest.mark.parametrize(("reranker", "typed"), [(False, False), (True, True), (True, False)])
def test_the_answer_is_that_of_the_two_steps(tmp_path: Path, reranker: bool, typed: bool) -> None:
    folder = checkpoint(tmp_path / "m", reranker=reranker, typed=typed)
    short = [pairs(*PAIRS[:5])] if reranker else [texts(*TEXTS[:5])]
    requests = [*short, pairs(*PAIRS[5:]) if reranker else texts(*TEXTS[5:])]
    found = answers(joined(folder, reranker=reranker), *requests)
    for request, response in zip(requests, found, strict=True):
        logits, counts = through_two_steps(folder, request, reranker=reranker, typed=typed)
        assert set(response.tensors) == {"logits", "token_count"}
        assert response.tensors["token_count"].tolist() == counts.tolist()
        assert response.tensors["token_count"].dtype == np.int32
        np.testing.assert_allclose(response.tensors["logits"], logits, atol=1e-5)
        assert response.tensors["logits"].dtype == np.float32
    together = np.concatenate([response.tensors["logits"] for response in found])
    assert len(np.unique(together.round(4), axis=0)) > len(together) // 2  # no mix-up can hide
    if reranker:
        assert found[0].tensors["token_count"].ravel().tolist() == [6, 9, NO_ROOM, 64, 4]


def test_a_text_has_the_same_logits_alone_and_beside_others(model: Any) -> None:
    alone = [answers(model, texts(text))[0].tensors["logits"][0] for text in TEXTS]
    together = answers(model, texts(*TEXTS[:4]), texts(TEXTS[4]), texts(*TEXTS[5:]))
    found = np.concatenate([response.tensors["logits"] for response in together])
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_bytes_that_are_not_utf8_fail_their_own_request_only(model: Any) -> None:
    bad = FakeRequest({"TEXT": np.array([[b"a"], [b"\xff\xfe"]], dtype=object)})
    before, failed, after = answers(model, texts("a"), bad, texts("b"))
    assert failed.error.args == ("TEXT is not UTF-8", 3)
    assert (before.error, after.error) == (None, None)


def test_a_request_that_cannot_be_read_fails_alone(model: Any) -> None:
    failed, fine = answers(model, {"TEXT": np.array([[3.5]], dtype=object)}, texts("a"))
    assert failed.error.args == ("tokenization failed: TypeError",)
    assert fine.error is None


@pytest.mark.parametrize(("reranker", "called"), [(False, "TEXT"), (True, "QUERY or TEXT")])
def test_a_request_without_rows_is_refused_and_its_neighbours_are_answered(
    tmp_path: Path, reranker: bool, called: str
) -> None:
    folder = checkpoint(tmp_path / "m", reranker=reranker)
    nothing = np.empty((0, 1), dtype=object)
    empty = FakeRequest({"QUERY": nothing, "TEXT": nothing})
    model = joined(folder, reranker=reranker)
    failed, fine = answers(model, empty, pairs(("a", "b")) if reranker else texts("a"))
    assert failed.error.args == (f"{called} has no rows", 3)
    assert fine.error is None


class PanicException(BaseException):
    """As tokenizers raises it where its Rust code panics."""


@pytest.mark.parametrize("text", ["a", LONG])
def test_a_panic_of_tokenizers_fails_its_own_request_only(
    model: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(_: list[str]) -> Any:
        raise PanicException

    with monkeypatch.context() as patch:
        patch.setattr(model.reader, "encoder", SimpleNamespace(encode_batch=panic))
        patch.setattr(model.reader, "tokenizer", SimpleNamespace(encode_batch_fast=panic))
        (failed,) = answers(model, texts(text))
    assert failed.error.args == ("tokenization failed: PanicException",)
    assert answers(model, texts(text))[0].error is None


def test_a_text_that_the_encoder_fails_on_fails_its_own_request_only(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = model.threads.device.session

    def run(names: list[str], inputs: dict[str, Any]) -> Any:
        if (inputs["input_ids"] == 7).any():  # "d"
            raise RuntimeError("/a/path of this machine")
        return session.run(names, inputs)

    monkeypatch.setattr(model.threads.device, "session", SimpleNamespace(run=run))
    before, failed, after = answers(model, texts("a", "b"), texts("c", "d"), texts("e"))
    assert failed.error.args == ("inference failed: RuntimeError",)
    assert not failed.tensors
    for response, length in ((before, 2), (after, 1)):
        assert response.error is None
        assert response.tensors["logits"].shape == (length, 3)


def test_a_long_text_does_not_keep_short_ones_waiting(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()
    encode = model.reader.encode

    def slow(rows: list[Any], *, long: bool) -> Any:
        if long:
            entered.set()
            assert leave.wait(30)
        return encode(rows, long=long)

    monkeypatch.setattr(model.reader, "encode", slow)
    waiting = texts(LONG)
    assert model.execute([waiting]) == [None]
    assert entered.wait(30)
    assert answers(model, texts("a"))[0].error is None
    assert waiting.answers.empty()
    leave.set()
    assert waiting.answers.get(timeout=30)[0].error is None


def test_the_end_of_the_step_ends_its_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    model = joined(checkpoint(tmp_path / "m", reranker=False))
    assert len(set(threading.enumerate()) - before) >= 2
    answers(model, texts("a"), texts(LONG))
    model.finalize()
    assert set(threading.enumerate()) <= before

"""The steps of a reranker outside Triton, with a stand-in for its module; tests/triton runs them inside."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from export.reference import logits
from export.repository.write import ENCODER_SOURCES, TOKENIZER_SOURCES
from export.triton_models.pairs import NO_ROOM
from tests.support.small_checkpoints import write_checkpoint
from tests.support.triton_steps import (
    answers,
    fake_pb_utils,
    load_step,
    pairs,
    strings,
    tensors,
)

LIMIT = 16
IDS = ("input_ids", "attention_mask")
TYPED = (*IDS, "token_type_ids")


@pytest.fixture(autouse=True)
def _pb_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_pb_utils())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reranker of BERT's with its tokenizer as it is published."""
    folder = write_checkpoint(tmp_path / "small", labels=1, family="bert")
    published = load_checkpoint(folder, tmp_path / "work").tokenizer_file
    (folder / "tokenizer.json").write_bytes(published.read_bytes())
    return folder


def step(folder: Path, outputs: tuple[str, ...] = TYPED, **parameters: str) -> Any:
    config = {
        "input": tensors("QUERY", "TEXT"),
        "output": tensors(*outputs, "token_count"),
        "parameters": strings({"max_tokens": str(LIMIT), "pad_id": "0"} | parameters),
    }
    return load_step(TOKENIZER_SOURCES, folder, config)


def rows(response: Any, name: str) -> list[list[int]]:
    mask = response.tensors["attention_mask"] == 1
    return [row[used].tolist() for row, used in zip(response.tensors[name], mask, strict=True)]


def test_pairs_get_ids_types_and_counts(folder: Path) -> None:
    (response,) = step(folder).execute([pairs(("a", "b c"), ("a b", "c " * 30))])
    assert rows(response, "input_ids")[0] == [2, 4, 3, 5, 6, 3]
    assert rows(response, "token_type_ids")[0] == [0, 0, 0, 1, 1, 1]
    assert rows(response, "input_ids")[1] == [2, 4, 5, 3, *[6] * 11, 3]
    assert response.tensors["token_count"].tolist() == [[6], [35]]
    assert response.tensors["token_count"].dtype == np.int32
    assert response.tensors["token_type_ids"][0].tolist() == [0, 0, 0, 1, 1, 1] + [0] * 10  # the padding's


def test_a_query_without_room_has_a_count_of_its_own_and_fails_no_neighbour(folder: Path) -> None:
    model = step(folder)
    alone = model.execute([pairs(("a", "b c"))])[0]
    # 13 tokens fill the limit with the three special ones: no text, no pair.
    asked = [("a", "b c"), ("a " * 13, "b"), ("a " * 12, "b c"), ("a " * 13, " "), ("a " * 40, "b")]
    (response,) = model.execute([pairs(*asked)])
    assert response.tensors["token_count"].ravel().tolist() == [6, NO_ROOM, 17, LIMIT, NO_ROOM]
    assert rows(response, "input_ids")[0] == rows(alone, "input_ids")[0]
    assert rows(response, "input_ids")[1] == [2, 3, 3]  # something that the encoder can run on
    assert rows(response, "input_ids")[2] == [2, *[4] * 12, 3, 5, 3]


def test_a_model_without_types_gets_none(folder: Path) -> None:
    (response,) = step(folder, IDS).execute([pairs(("a", "b"))])
    assert set(response.tensors) == {"input_ids", "attention_mask", "token_count"}


def test_types_are_padded_to_the_buckets_too(folder: Path) -> None:
    padded = step(folder, length_buckets="8,16", pad_id="1")
    (response,) = padded.execute([pairs(("a", "b c"))])
    assert response.tensors["input_ids"].tolist() == [[2, 4, 3, 5, 6, 3, 1, 1]]
    assert response.tensors["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]]
    assert response.tensors["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]


def test_the_end_of_a_text_is_kept_where_the_file_says_so(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(9, direction="left")
    tokenizer.save(str(file))
    (response,) = step(folder).execute([pairs(("a", "b " * 30 + "c"))])
    assert rows(response, "input_ids") == [[2, 4, 3, *[5] * 11, 6, 3]]


def test_long_pairs_are_answered_by_the_thread_as_short_ones_are(folder: Path) -> None:
    model = step(folder)
    long = pairs(("a", "b c " * 250_000), ("a " * 30_000, "b"), ("a", "b"))
    assert model.execute([long]) == [None]
    response, flags = long.answers.get(timeout=30)
    assert flags == "final"
    (short,) = model.execute([pairs(("a", "b c " * 100), ("a " * 30, "b"), ("a", "b"))])
    assert rows(response, "input_ids") == rows(short, "input_ids")
    counts = response.tensors["token_count"].ravel().tolist()
    assert counts[1:] == [NO_ROOM, 5]
    assert LIMIT < counts[0] < 500_000
    model.finalize()


def test_a_query_that_stands_beside_many_texts_does_not_make_them_long(folder: Path) -> None:
    model = step(folder)
    query = "a " * 5_000
    (response,) = model.execute([pairs(*[(query, "b")] * 8)])  # 80 kB, of which 10 are to be tokenized
    assert response.tensors["token_count"].ravel().tolist() == [NO_ROOM] * 8


@pytest.mark.parametrize("bad", ["QUERY", "TEXT"])
def test_bytes_that_are_not_utf8_fail_their_own_request_only(folder: Path, bad: str) -> None:
    request = pairs(("a", "b"))
    request[bad] = np.array([[b"\xff\xfe"]], dtype=object)
    first, second = step(folder).execute([request, pairs(("a", "b"))])
    assert first.error.args == ("QUERY or TEXT is not UTF-8", 3)
    assert second.error is None


def encoder(folder: Path, tmp_path: Path, *, typed: bool) -> Any:
    weights = load_checkpoint(folder, tmp_path / "work").encoder
    graph = build_graph(weights if typed else weights.without_types(), "fp32")
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    config = {
        "input": tensors(*(TYPED if typed else IDS)),
        "output": tensors("logits", dims=1),
        "instance_group": [{"count": 1}],
    }
    return load_step(ENCODER_SOURCES, tmp_path, config)


@pytest.mark.parametrize("typed", [True, False])
def test_pairs_of_unequal_length_get_the_scores_of_the_reference(
    folder: Path, tmp_path: Path, typed: bool
) -> None:
    weights = load_checkpoint(folder, tmp_path / "work").encoder
    asked = [("a b", "c"), ("a", "b c d e f"), ("c d e", "f g h i j k l"), ("a", "a"), ("b c", "d e")]
    requests = [pairs(*asked[:3]), pairs(*asked[3:])]
    tokenized = step(folder, TYPED if typed else IDS).execute(requests)
    model = encoder(folder, tmp_path, typed=typed)
    found = answers(model, *(each.tensors for each in tokenized))
    model.finalize()
    scores = np.concatenate([response.tensors["logits"] for response in found])
    tokens = [row for each in tokenized for row in rows(each, "input_ids")]
    types = [row for each in tokenized for row in rows(each, "token_type_ids")] if typed else [None] * 5
    wanted = [logits(weights, row, own) for row, own in zip(tokens, types, strict=True)]
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    flat = [logits(weights, row) for row in tokens]
    assert (np.abs(np.array(wanted) - flat).max() > 1e-2) == typed  # types count where they are read


class PanicException(BaseException):
    """As tokenizers raises it where its Rust code panics."""


def test_a_panic_of_tokenizers_fails_its_own_request_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = step(folder)

    def panic(_: list[Any]) -> Any:
        raise PanicException

    with monkeypatch.context() as patch:
        patch.setattr(model.reader, "pairs", SimpleNamespace(encode_batch=panic))
        (response,) = model.execute([pairs(("a", "b"))])
    assert response.error.args == ("tokenization failed: PanicException",)
    assert model.execute([pairs(("a", "b"))])[0].error is None

"""Bodies of requests in the forms of TEI, Cohere and Jina."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.domain.errors import BadInput, EmptyInput, MalformedBody
from gateway.domain.requests import InputLimits, PairRequest, RerankRequest, TextRequest
from gateway.domain.tasks import Task
from gateway.rerank_apis import cohere, tei
from gateway.rerank_apis.tei.requests import read_predict

LIMITS = InputLimits(max_batch_texts=3, max_contexts=4)
TEI = {"query": "q", "texts": ["a", "b"]}
COHERE = {"query": "q", "documents": ["a", {"text": "b"}]}


def body(given: object) -> bytes:
    return json.dumps(given).encode()


def test_a_ranking_for_tei() -> None:
    asked = tei.read_rerank(body(TEI), LIMITS)
    assert asked.request == RerankRequest("q", ["a", "b"])
    assert (asked.model, asked.returns_text) == (None, False)
    assert (asked.options.raw_scores, asked.options.may_truncate) == (False, True)


@pytest.mark.parametrize("direction", ["right", "Right"])
def test_the_options_of_tei(direction: str) -> None:
    options = {"raw_scores": True, "return_text": True, "truncate": False, "truncation_direction": direction}
    asked = tei.read_rerank(body(TEI | options | {"model": "m", "top_n": 1}), LIMITS)
    assert (asked.options.raw_scores, asked.options.may_truncate, asked.returns_text) == (True, False, True)
    assert (asked.model, asked.request.top_k) == ("m", None)  # top_n is unknown to TEI as well
    assert tei.read_rerank(body(TEI | {"truncate": None}), LIMITS).options.may_truncate


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query": ""}, EmptyInput, "`query` must not be empty"),
        ({"texts": []}, EmptyInput, "`texts` must not be empty"),
        ({"texts": ["a"] * 5}, BadInput, "`texts` has 5 elements; 4 are allowed"),
        ({"texts": [{"text": "a"}]}, BadInput, r"\$.texts\[0\]"),
        ({"truncation_direction": "left"}, BadInput, "must be right"),
        ({"truncation_direction": "up"}, BadInput, "must be right: texts"),
        ({"raw_scores": "yes"}, BadInput, "raw_scores"),
    ],
)
def test_what_tei_s_ranking_must_be(changes: dict[str, Any], error: type[BadInput], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        tei.read_rerank(body(TEI | changes), LIMITS)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("inputs", "requests", "is_batch"),
    [
        ("a", [TextRequest("a")], False),
        (["a"], [TextRequest("a")], False),
        (["a", "b"], [PairRequest("a", "b")], False),
        ([["a"], ["b"]], [TextRequest("a"), TextRequest("b")], True),
        ([["a", "b"]], [PairRequest("a", "b")], True),
        ([["a", ""], ["c", "d"]], [PairRequest("a", ""), PairRequest("c", "d")], True),
    ],
)
def test_the_inputs_of_predict(inputs: object, requests: list[object], is_batch: bool) -> None:
    asked = read_predict(body({"inputs": inputs}), LIMITS)
    assert (asked.requests, asked.is_batch) == (requests, is_batch)
    assert asked.task is (Task.RERANK if isinstance(requests[0], PairRequest) else Task.CLASSIFICATION)


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ("", EmptyInput),
        ([], EmptyInput),
        ([[]], EmptyInput),
        ([["a"], [""]], EmptyInput),
        (["", ""], EmptyInput),
        (["a", "b", "c"], BadInput),
        (["a", ["b"]], BadInput),
        ([["a"], "b"], BadInput),
        ([["a", "b", "c"]], BadInput),
        ([["a"], ["b", "c"]], BadInput),
        ([["a"]] * 4, BadInput),
        ([[1]], BadInput),
        (None, BadInput),
    ],
)
def test_other_inputs_of_predict_are_refused(inputs: object, error: type[BadInput]) -> None:
    with pytest.raises(BadInput) as caught:
        read_predict(body({"inputs": inputs}), LIMITS)
    assert type(caught.value) is error


@pytest.mark.parametrize("none", [{}, {"top_n": None, "return_documents": None, "rank_fields": None}])
def test_a_ranking_for_cohere(none: dict[str, object]) -> None:
    asked = cohere.read_rerank(body(COHERE | none), LIMITS)
    assert asked.request == RerankRequest("q", ["a", "b"])
    assert (asked.model, asked.returns_documents) == (None, False)


def test_the_options_of_cohere() -> None:
    options = {"top_n": 9, "return_documents": True, "rank_fields": ["text"], "max_tokens_per_doc": 10}
    asked = cohere.read_rerank(body(COHERE | options | {"model": "m"}), LIMITS)
    assert (asked.model, asked.request.top_k, asked.returns_documents) == ("m", 9, True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query": ""}, EmptyInput, "'query' must not be empty"),
        ({"documents": []}, EmptyInput, "'documents' must not be empty"),
        ({"documents": ["a"] * 5}, BadInput, "'documents' has 5 elements; 4 are allowed"),
        ({"documents": [{"title": "a"}]}, BadInput, r"`text` - at `\$.documents\[0\]`"),
        ({"rank_fields": ["title"]}, BadInput, "rank_fields"),
        ({"top_n": 0}, BadInput, "'top_n' must be at least 1"),
        ({"top_n": 1.5}, BadInput, "top_n"),
    ],
)
def test_what_cohere_s_ranking_must_be(changes: dict[str, Any], error: type[BadInput], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        cohere.read_rerank(body(COHERE | changes), LIMITS)
    assert type(caught.value) is error


def test_what_is_no_json_is_malformed_in_every_form() -> None:
    for read in (tei.read_rerank, read_predict, cohere.read_rerank):
        with pytest.raises(MalformedBody):
            read(b"{", LIMITS)
        with pytest.raises(MalformedBody):
            read(b"", LIMITS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(body(COHERE), True), (body({"documents": None}), True), (body(TEI), False)],
)
def test_documents_tell_the_form_that_a_body_has(given: bytes, expected: bool) -> None:
    assert cohere.has_documents(given) is expected


@pytest.mark.parametrize("given", [b"", b"{", b"[]", b'{"documents":[}', b"\xff", b"[" * 100_000])
def test_what_is_no_object_has_no_documents(given: bytes) -> None:
    assert not cohere.has_documents(given)


KEYS = ("query", "texts", "documents", "inputs", "truncation_direction", "rank_fields")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [{"secret": "secret"}, [{"secret": 1}], "secret", ["secret"] * 3], ids=str)
def test_an_error_shows_nothing_of_the_body(key: str, value: object) -> None:
    forms = ((tei.read_rerank, TEI), (read_predict, {"inputs": "a"}), (cohere.read_rerank, COHERE))
    for read, whole in forms:
        message = ""
        try:
            read(body(whole | {key: value}), LIMITS)
        except BadInput as error:
            message = error.message
        assert "secret" not in message


@pytest.mark.parametrize(
    "given",
    [b'\xef\xbb\xbf{"query":"q","documents":["a"]}', b'{"query":"q","documents":["\\ud83d"]}'],
    ids=["byte order mark", "lone surrogate"],
)
def test_documents_are_found_in_whatever_is_read_as_json(given: bytes) -> None:
    assert cohere.has_documents(given)
    assert cohere.read_rerank(given, LIMITS).request.query == "q"

"""What is stored comes back as it was, whatever the text."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.results import batch_headers, batch_result
from gateway.batches import codec
from gateway.domain.errors import (
    AiError,
    BackendFailed,
    BackendUnavailable,
    BadInput,
    DeadlineExceeded,
    ModelUnavailable,
    NoSuchModel,
    Overloaded,
)
from gateway.domain.options import NO_OPTIONS, CallOptions
from gateway.domain.requests import BatchRequest, PairRequest, RerankRequest, TextRequest
from gateway.domain.service import BatchItem, Classification, Ranking
from gateway.domain.tasks import Task

TEXTS = st.text(st.characters())
REFERENCES = st.none() | st.text()
SCORES = st.floats(0, 1)
REQUESTS = (
    st.builds(TextRequest, TEXTS)
    | st.builds(PairRequest, TEXTS, TEXTS)
    | st.builds(RerankRequest, TEXTS, st.lists(TEXTS, max_size=3), st.none() | st.integers(1, 2**53))
)
PAIRS = st.builds(
    Classification,
    scores=st.lists(st.tuples(st.text(min_size=1), SCORES), min_size=1, max_size=3),
    tokens=st.integers(0, 512),
    truncated=st.booleans(),
    cached=st.none() | st.booleans(),
    task=st.sampled_from(Task),
    windows=st.integers(1, 9),
)
RANKINGS = st.lists(PAIRS, max_size=3).map(
    lambda pairs: Ranking([(place, 1 / (place + 1)) for place in range(len(pairs))], pairs)
)


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@given(st.lists(st.builds(BatchRequest, REFERENCES, REQUESTS), max_size=4))
def test_requests_give_the_model_the_same_bytes(items: list[BatchRequest]) -> None:
    again, options = codec.decode_inputs(codec.encode_inputs(items))
    assert options == NO_OPTIONS
    assert [item.reference for item in again] == [item.reference for item in items]
    for before, after in zip(items, again, strict=True):
        assert type(after.request) is type(before.request)
        assert not isinstance(before.request, BadInput)
        assert not isinstance(after.request, BadInput)
        assert list(after.request.inputs()) == list(before.request.inputs())
        if isinstance(before.request, RerankRequest):
            assert isinstance(after.request, RerankRequest)
            assert after.request.top_k == before.request.top_k


@pytest.mark.parametrize(
    "options",
    [
        CallOptions(skip_cache=True),
        CallOptions(False, 60),
        CallOptions(None, 0),
        CallOptions(long_texts="window"),
    ],
)
def test_the_options_of_the_call_are_kept(options: CallOptions) -> None:
    stored = codec.encode_inputs([BatchRequest("r", TextRequest("a"))], replace(options, patience_s=3.0))
    assert codec.decode_inputs(stored) == ([BatchRequest("r", TextRequest("a"))], options)
    assert len(codec.failed_items(stored)) == 1


@given(st.text())
def test_a_validation_error_keeps_its_words(description: str) -> None:
    (item,), _ = codec.decode_inputs(codec.encode_inputs([BatchRequest("r", BadInput(description))]))
    assert isinstance(item.request, BadInput)
    assert (item.request.description, item.request.message) == (description, f"Bad input: {description}")


@given(st.lists(st.builds(BatchItem, REFERENCES, PAIRS | RANKINGS), max_size=4))
def test_outcomes_are_rendered_and_charged_as_before(items: list[BatchItem]) -> None:
    again = codec.decode_outcomes(codec.encode_outcomes(items))
    for shape in ("array", "items"):
        assert batch_result(again, shape, "id") == batch_result(items, shape, "id")
    assert batch_headers(again, "id") == batch_headers(items, "id")


@pytest.mark.parametrize(
    "error",
    [
        BadInput("Error: no"),
        BackendFailed(),
        BackendUnavailable(),
        ModelUnavailable(),
        DeadlineExceeded(),
        NoSuchModel("@cf/a/b"),
        Overloaded(),
    ],
)
def test_an_error_keeps_code_status_and_words(error: AiError) -> None:
    (item,) = codec.decode_outcomes(codec.encode_outcomes([BatchItem(None, error)]))
    assert isinstance(item.outcome, AiError)
    assert (item.outcome.code, item.outcome.status) == (error.code, error.status)
    assert (item.outcome.message, str(item.outcome)) == (error.message, str(error))


def test_an_error_of_a_newer_gateway_is_still_an_error() -> None:
    (item,) = codec.decode_outcomes(b'[["failed",null,9999,"Something new."]]')
    assert isinstance(item.outcome, BackendFailed)
    assert item.outcome.message == "Something new."


def test_of_a_chunk_that_cannot_be_decoded_each_request_has_failed_under_its_name() -> None:
    stored = codec.encode_inputs([BatchRequest("r", TextRequest("a")), BatchRequest(None, TextRequest("b"))])
    newer = stored[:-1] + b',["from the future","s",[1],{"x":1}],7]'
    with pytest.raises(msgspec.ValidationError):
        codec.decode_inputs(newer)
    items = codec.failed_items(newer)
    assert [item.reference for item in items] == ["r", None, "s", None]
    assert all(isinstance(item.outcome, BackendFailed) for item in items)
    for broken in (b"not json", b"{}", b"\xff", b""):
        assert len(codec.failed_items(broken)) == 1

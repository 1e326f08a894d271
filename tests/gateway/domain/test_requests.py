"""What a request asks of a model: any JSON is a request or is refused, and nothing is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import BadInput
from gateway.domain.inputs import Pair
from gateway.domain.requests import (
    BatchCall,
    InputLimits,
    RerankRequest,
    SingleCall,
    TextRequest,
    read_call,
    read_request,
)
from gateway.domain.tasks import PRICES, Task, parse_task
from gateway.domain.validate import utf8

LIMITS = InputLimits(max_batch_texts=5, max_contexts=4)
TEXT = st.text(min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(("text", "query", "contexts", "top_k", "x")), children, max_size=4)
    ),
    max_leaves=12,
)
CONTEXTS = st.lists(st.builds(lambda text: {"text": text}, TEXT), max_size=4)


@given(JSON, st.sampled_from(list(Task)))
def test_any_json_is_a_request_or_is_refused_in_the_validators_manner(payload: object, task: Task) -> None:
    request: object
    try:
        request = read_request(payload, task, LIMITS)
    except BadInput as refusal:
        request = refusal
    if isinstance(request, BadInput):
        assert request.description.startswith("Error: ")
        return
    assert isinstance(payload, dict)
    if task is Task.CLASSIFICATION:
        assert request == TextRequest(payload["text"])
    else:
        assert isinstance(request, RerankRequest)
        assert request.query == payload["query"]
        assert list(request.contexts) == [context["text"] for context in payload["contexts"]]
        assert request.top_k == payload.get("top_k")
        assert len(request.inputs()) == len(payload["contexts"])


@given(JSON, st.sampled_from(list(Task)), st.booleans())
def test_a_call_is_read_or_refused_whatever_it_holds(payload: object, task: Task, queued: bool) -> None:
    for given_ in (payload, {"requests": payload}, {"requests": [payload, payload]}):
        try:
            call = read_call(given_, task, LIMITS, queued=queued)
        except BadInput:
            continue
        items = call.items if isinstance(call, BatchCall) else [call]
        for item in items:
            assert isinstance(item.request, TextRequest | RerankRequest | BadInput)
            if isinstance(item.request, BadInput):
                assert item.request.__traceback__ is None  # or it would keep the request in memory


@given(TEXT, CONTEXTS, st.none() | st.integers(1, 9))
def test_a_reranker_reads_the_query_beside_each_context_in_their_order(
    query: str, contexts: list[dict[str, str]], top_k: int | None
) -> None:
    payload: dict[str, Any] = {"query": query, "contexts": contexts, "documents": 1}
    payload |= {} if top_k is None else {"top_k": top_k}
    call = read_call(payload, Task.RERANK, LIMITS, queued=False)
    assert isinstance(call, SingleCall)
    assert isinstance(call.request, RerankRequest)
    assert call.request.top_k == top_k
    assert list(call.request.inputs()) == [Pair(utf8(query), utf8(each["text"])) for each in contexts]


def test_one_more_context_than_is_allowed_is_refused_also_when_a_batch_has_them() -> None:
    def asking(count: int) -> dict[str, Any]:
        return {"query": "a", "contexts": [{"text": "b"}] * count}

    assert isinstance(read_request(asking(4), Task.RERANK, LIMITS), RerankRequest)
    with pytest.raises(BadInput, match="Length of '/contexts' must be <= 4"):
        read_request(asking(5), Task.RERANK, LIMITS)
    allowed = read_call({"requests": [asking(4), asking(1)]}, Task.RERANK, LIMITS, queued=False)
    assert isinstance(allowed, BatchCall)
    with pytest.raises(BadInput, match="6 contexts, all together must be <= 5"):
        read_call({"requests": [asking(4), asking(2)]}, Task.RERANK, LIMITS, queued=False)


@given(st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6))
def test_no_two_pairs_have_the_same_bytes(query: bytes, text: bytes, other: bytes, another: bytes) -> None:
    one, two = Pair(query, text), Pair(other, another)
    assert (bytes(one) == bytes(two)) is (one == two)
    assert len(one) == len(query) + len(text)


@given(st.binary(max_size=8), st.data())
def test_where_a_pair_is_cut_shows_in_its_bytes(whole: bytes, data: st.DataObject) -> None:
    places = st.integers(0, len(whole))
    first, second = data.draw(places), data.draw(places)
    one, two = (Pair(whole[:place], whole[place:]) for place in (first, second))
    assert (bytes(one) == bytes(two)) is (first == second)


@pytest.mark.parametrize("name", ["", "Text Classification", "text-classification", "classification"])
def test_earlier_names_of_the_task_mean_classification(name: str) -> None:
    assert parse_task(name) is Task.CLASSIFICATION


@pytest.mark.parametrize("name", ["Rerank", "reranking", "text_classification", "embedding", " rerank"])
def test_an_unknown_task_is_refused(name: str) -> None:
    assert parse_task("rerank") is Task.RERANK
    with pytest.raises(ValueError, match=name):
        parse_task(name)


def test_every_task_has_a_price_that_follows_the_tokens() -> None:
    assert set(PRICES) == set(Task)
    assert PRICES[Task.CLASSIFICATION].of(1_000_000) == 2394
    assert PRICES[Task.RERANK].of(0) == 0

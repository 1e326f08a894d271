"""The use case: rankings are made of the scores of pairs, whatever stands beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.backend import QUERY_TOO_LONG, Answer, RawScores, Timing
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BackendFailed, Overloaded, QueryTooLong
from gateway.domain.inputs import Pair
from gateway.domain.requests import PairRequest, RerankRequest, TaskRequest, TextRequest
from gateway.domain.scores import ProblemType
from gateway.domain.service import Predictor, Ranking
from gateway.domain.tasks import Task

RERANKER = Model("r", "r", ("LABEL_0",), 10, ProblemType.MULTI_LABEL, task=Task.RERANK)
CLASSIFIER = Model("c", "c", ("A", "B"), 10, ProblemType.SINGLE_LABEL)
CONTEXTS = st.lists(st.text(min_size=1, max_size=3), max_size=8)


@dataclass
class Source:
    """The logit of a pair is the length of its text, unless told otherwise."""

    answers: dict[bytes, Answer] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> list[Answer]:
        self.asked.append(list(texts))
        return [self._answer(model, text) for text in texts]

    def _answer(self, model: Model, data: Any) -> Answer:
        text = data.text if isinstance(data, Pair) else data
        logits = (float(len(text)),) * len(model.labels)
        return self.answers.get(text, RawScores(logits, 3 + len(text)))


def run(coroutine: Any) -> Any:
    """Drive a coroutine that never waits."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


@given(CONTEXTS, st.none() | st.integers(1, 10))
def test_a_ranking_is_sorted_stable_and_cut(contexts: list[str], top_k: int | None) -> None:
    ranking = run(Predictor(Source()).answer(RERANKER, RerankRequest("q", contexts, top_k), 1.0))
    scores = [1 / (1 + math.exp(-len(text.encode()))) for text in contexts]
    order = sorted(range(len(contexts)), key=lambda place: (-scores[place], place))[:top_k]
    assert [place for place, _ in ranking.entries] == order
    assert [score for _, score in ranking.entries] == pytest.approx([scores[place] for place in order])
    assert len(ranking.pairs) == len(contexts)
    assert ranking.tokens == sum(min(10, 3 + len(text.encode())) for text in contexts)


@given(st.lists(CONTEXTS, max_size=5))
def test_requests_that_are_answered_together_get_what_they_get_alone(batches: list[list[str]]) -> None:
    source = Source({b"0": BackendFailed()})
    requests = [RerankRequest("q", contexts) for contexts in batches]
    together = run(Predictor(source).answer_all(RERANKER, requests, 1.0))
    assert len(source.asked) <= 1  # in one go, so that they can share calls
    for contexts, request, answer in zip(batches, requests, together, strict=True):
        if "0" in contexts:
            assert isinstance(answer, BackendFailed)
        else:
            assert answer == run(Predictor(Source()).answer(RERANKER, request, 1.0))


@pytest.mark.parametrize(
    ("spoiled", "error"),
    [
        (Overloaded(), Overloaded),
        (RawScores((math.nan,), 5), BackendFailed),
        (RawScores((0.0,), QUERY_TOO_LONG), QueryTooLong),
        (RawScores((math.nan,), QUERY_TOO_LONG), QueryTooLong),  # these logits are no answer
    ],
)
def test_a_pair_without_a_score_fails_its_request_and_no_other(spoiled: Answer, error: type[AiError]) -> None:
    source = Source({b"bad": spoiled})
    requests: list[TaskRequest] = [
        RerankRequest("q", ["a", "bad"]),
        RerankRequest("q", ["a", "b"]),
        PairRequest("q", "bad"),
    ]
    first, second, third = run(Predictor(source).answer_all(RERANKER, requests, 1.0))
    assert type(first) is error
    assert type(third) is error
    assert first.__traceback__ is None
    assert isinstance(second, Ranking)
    if isinstance(first, QueryTooLong):
        words = "Error: '/query' leaves no room for a context: the model reads 10 tokens"
        assert (first.description, first.max_tokens) == (words, 10)


LONG = "word " * 100
"""A query that no context fits beside."""


@pytest.mark.parametrize(
    ("refusal", "error"), [(RawScores((0.0,), QUERY_TOO_LONG), QueryTooLong), (Overloaded(), Overloaded)]
)
def test_a_long_query_is_sent_once_where_it_has_no_answer(refusal: Answer, error: type[AiError]) -> None:
    source = Source({b"a": refusal, b"b": refusal, b"c": refusal})
    requests = [
        RerankRequest(LONG, ["a", "b", "c"]),
        RerankRequest("q", ["d", "e"]),
        RerankRequest(LONG, ["b"]),
    ]
    long, short, single = run(Predictor(source).answer_all(RERANKER, requests, 1.0))
    assert [pair.text for (pairs) in source.asked for pair in pairs] == [b"a", b"d", b"e", b"b"]
    assert (type(long), type(single)) == (error, error)
    assert short == run(Predictor(Source()).answer(RERANKER, requests[1], 1.0))


@given(st.lists(CONTEXTS, max_size=4))
def test_a_long_query_that_leaves_room_gets_the_answer_of_a_short_one(batches: list[list[str]]) -> None:
    source = Source()
    long = [RerankRequest(LONG, contexts) for contexts in batches]
    answers = run(Predictor(source).answer_all(RERANKER, long, 1.0))
    short = [RerankRequest("q", contexts) for contexts in batches]
    assert answers == run(Predictor(Source()).answer_all(RERANKER, short, 1.0))
    sent = [pair.text for pairs in source.asked for pair in pairs]
    assert sorted(sent) == sorted(text.encode() for contexts in batches for text in contexts)


def test_scores_that_are_equal_as_probabilities_are_sorted_by_their_logits() -> None:
    source = Source({b"a": RawScores((40.0,), 5), b"b": RawScores((50.0,), 5), b"c": RawScores((45.0,), 5)})
    ranking = run(Predictor(source).answer(RERANKER, RerankRequest("q", ["a", "b", "c"]), 1.0))
    assert ranking.entries == [(1, 1.0), (2, 1.0), (0, 1.0)]


def test_what_is_told_of_a_ranking_is_told_of_all_its_pairs() -> None:
    def raw(tokens: int, cached: bool | None, queue_s: float, triton_s: float) -> RawScores:
        return RawScores((0.0,), tokens, cached, Timing(queue_s, triton_s))

    source = Source({b"a": raw(7, True, 0.1, 0.5), b"b": raw(12, False, 0.4, 0.2)})
    ranking = run(Predictor(source).answer(RERANKER, RerankRequest("q", ["a", "b"], 1), 1.0))
    assert (ranking.tokens, ranking.truncated, ranking.cached) == (17, True, False)
    assert ranking.timing == Timing(0.4, 0.5)
    assert ranking.neurons == pytest.approx(17 * 282.6288 / 1e6)
    # What was cut off by top_k was read, too.
    assert [place for place, _ in ranking.entries] == [0]
    empty = run(Predictor(source).answer(RERANKER, RerankRequest("q", []), 1.0))
    assert empty == Ranking([], [])
    assert (empty.tokens, empty.truncated, empty.cached, empty.timing) == (0, False, None, None)


def test_a_classification_is_priced_by_its_task() -> None:
    answer = run(Predictor(Source()).answer(CLASSIFIER, TextRequest("abc"), 1.0))
    assert (answer.tokens, answer.neurons) == (6, pytest.approx(6 * 2394 / 1e6))
    reranked = run(Predictor(Source()).answer(RERANKER, PairRequest("q", "abc"), 1.0))
    assert reranked.neurons == pytest.approx(6 * 282.6288 / 1e6)
    assert replace(reranked, task=Task.CLASSIFICATION).neurons == answer.neurons

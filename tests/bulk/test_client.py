"""The client: what it repeats, what it takes apart, what it gives up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bulk.client.classify import Classifier, Failure, Scores
from bulk.client.http import ApiClient, ServerAddress
from bulk.client.models import choose_model
from bulk.errors import Refused, Unavailable
from tests.support.fake_api import ACCOUNT, LABELS, MODEL, TOKEN, FakeApi, scores_of, serving


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving(FakeApi()) as api:
        yield api


def client_of(api: FakeApi, token: str = TOKEN, patience_s: float = 5.0) -> ApiClient:
    return ApiClient(ServerAddress(api.url, token, ACCOUNT), 4, patience_s=patience_s)


async def test_texts_get_their_own_scores_in_order(api: FakeApi) -> None:
    texts = [f"text {number}" for number in range(10)]
    async with client_of(api) as client:
        model = await choose_model(client, None, reranker=False)
        answers = await Classifier(client, model.name)(texts)
    assert (model.name, model.labels, model.max_texts, model.max_tokens) == (MODEL, LABELS, 100, 512)
    assert answers == [Scores(LABELS, scores_of(text), truncated=False) for text in texts]
    assert api.requests == 1


async def test_a_busy_server_is_asked_again_after_the_time_that_it_names(api: FakeApi) -> None:
    api.faults.append((429, 3021, {"retry-after": "1", "retry-after-ms": "400"}))
    begun = time.monotonic()
    async with client_of(api) as client:
        answers = await Classifier(client, MODEL)(["a"])
    assert isinstance(answers[0], Scores)
    assert 0.4 <= time.monotonic() - begun < 1.0
    assert client.retries == 1


async def test_a_server_that_stays_away_is_given_up() -> None:
    server = ServerAddress("http://127.0.0.1:9", TOKEN, ACCOUNT)
    async with ApiClient(server, 4, patience_s=0.5) as client:
        with pytest.raises(Unavailable, match="gave no answer for 0 s: connection refused"):
            await Classifier(client, MODEL)(["a"])


async def test_a_wrong_token_is_said_at_once(api: FakeApi) -> None:
    async with client_of(api, token="wrong") as client:
        with pytest.raises(Refused, match="Authentication error; is TOKEN set"):
            await Classifier(client, MODEL)(["a"])


async def test_one_text_that_fails_takes_no_other_with_it(api: FakeApi) -> None:
    api.poison = "poison"
    texts = ["a", "b", "some poison", "c", "d"]
    async with client_of(api) as client:
        answers = await Classifier(client, MODEL)(texts)
    assert [isinstance(answer, Scores) for answer in answers] == [True, True, False, True, True]
    assert answers[2] == Failure("The model failed to answer.")
    assert set(api.asked.values()) == {1}


async def test_the_text_that_was_cut_is_found_among_several(api: FakeApi) -> None:
    texts = ["a", "long " * 600, "b", "c"]
    async with client_of(api) as client:
        answers = await Classifier(client, MODEL)(texts)
    assert [isinstance(answer, Scores) and answer.truncated for answer in answers] == [
        False,
        True,
        False,
        False,
    ]


async def test_a_text_that_times_out_again_and_again_is_a_failure_of_that_text(api: FakeApi) -> None:
    api.faults.extend([(408, 3007, {})] * 4)
    async with client_of(api) as client:
        assert await Classifier(client, MODEL)(["a"]) == [Failure("a fault")]
        assert isinstance((await Classifier(client, MODEL)(["a"]))[0], Scores)


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("http://[::1", TOKEN, "is not a valid address"),
        ("http://127.0.0.1:port", TOKEN, "is not a valid address"),
        ("http://me:secret@127.0.0.1:1", TOKEN, "must not have a user name or password"),
        ("http://me:secret@[::1", TOKEN, "must not have a user name or password"),
        ("http://127.0.0.1:1", "secret\n", "the token has a line end"),
    ],
)
def test_what_no_request_can_be_made_of_is_a_sentence_without_secrets(
    url: str, token: str, words: str
) -> None:
    with pytest.raises(Refused, match=words) as caught:
        ApiClient(ServerAddress(url, token, ACCOUNT), 4)
    assert "secret" not in str(caught.value)

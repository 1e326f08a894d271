"""The client: what it repeats, what it takes apart, what it gives up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from bulk.classification import ClassifyRows
from bulk.client.classify import Classifier, Failure, Scores
from bulk.client.http import ApiClient, Reply, ServerAddress
from bulk.client.models import choose_model, model_version
from bulk.client.rank import Ranker, Relevance
from bulk.errors import Refused, Unavailable
from bulk.tables.table import Record
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
    assert answers[2] == Failure("The model failed to answer.", is_final=False)
    assert set(api.asked.values()) == {1}


@pytest.mark.parametrize("tells_cut", [True, False])
async def test_the_texts_that_were_cut_are_found_among_several(api: FakeApi, tells_cut: bool) -> None:
    texts, api.tells_cut = ["a", "long " * 600, "b", "c", "long " * 700], tells_cut
    async with client_of(api) as client:
        classifier = Classifier(client, MODEL)
        answers = await classifier(texts)
    assert [isinstance(answer, Scores) and answer.truncated for answer in answers] == [
        len(text) > 10 for text in texts
    ]
    assert classifier.tells_cut == tells_cut
    if tells_cut:
        assert set(api.asked.values()) == {1}


@pytest.mark.parametrize(
    ("header", "cut"),
    [
        ("1", [1]),
        ("0,2-4", [0, 2, 3, 4]),
        (None, None),
        ("", None),
        ("5", None),
        ("a", None),
        ("1-", [1]),
    ],
)
def test_which_texts_were_cut_is_read_from_the_header(header: str | None, cut: list[int] | None) -> None:
    expected = None if cut is None else [place in cut for place in range(5)]
    assert Reply(200, b"", True, None, header, 0.0).cut(5) == expected
    assert Reply(200, b"", False, None, header, 0.0).cut(5) == [False] * 5
    assert Reply(200, b"", True, None, header, 0.0).cut(1) == [True]


@pytest.mark.parametrize("tells_cut", [True, False])
async def test_long_texts_go_together_where_the_server_says_which_were_cut(
    api: FakeApi, tells_cut: bool
) -> None:
    api.tells_cut = tells_cut
    async with client_of(api) as client:
        model, classifier = await choose_model(client, MODEL, reranker=False), Classifier(client, MODEL)
        work = ClassifyRows(classifier, model, "", all_scores=False)
        records = [Record(number, (f"{number} " + "long " * 600,), None) for number in range(20)]
        await work.ask(records[:2])
        requests = [request for record in records for request in work.add(record)] + work.flush()
    assert [len(request) for request in requests] == ([8, 8, 4] if tells_cut else [1] * 20)
    assert [record for request in requests for record in request] == records


async def test_documents_that_were_cut_are_told_apart() -> None:
    class Server:
        asked = 0

        async def run(self, model: str, body: dict[str, Any]) -> Reply:
            self.asked += 1
            entries = [{"id": place, "score": place / 10} for place in range(len(body["contexts"]))]
            content = json.dumps({"result": {"response": entries}}).encode()
            return Reply(200, content, True, None, "1,3", 0.0)

    server = Server()
    ranker = Ranker(cast("ApiClient", server), MODEL)
    answers = await ranker("query", ["a"] * 5)
    assert answers == [Relevance(place / 10, place in (1, 3)) for place in range(5)]
    assert server.asked == 1


async def test_a_text_that_times_out_again_and_again_is_a_failure_of_that_text(api: FakeApi) -> None:
    api.faults.extend([(408, 3007, {})] * 4)
    async with client_of(api) as client:
        assert await Classifier(client, MODEL)(["a"]) == [Failure("a fault", is_final=False)]
        assert isinstance((await Classifier(client, MODEL)(["a"]))[0], Scores)


async def test_a_server_at_which_everything_fails_is_given_up(api: FakeApi) -> None:
    api.faults.extend([(500, 8007, {"x-should-retry": "false"})] * 50_000)

    async def ask_on(client: ApiClient) -> None:
        while api.faults:
            await Classifier(client, MODEL)(["a"])

    async with client_of(api, patience_s=0.3) as client:
        with pytest.raises(Unavailable, match="gave no answer for 0 s: a fault"):
            await ask_on(client)


async def test_one_text_that_always_fails_is_no_reason_to_give_up(api: FakeApi) -> None:
    api.faults.extend([(500, 10013, {})] * 4)
    async with client_of(api, patience_s=0.3) as client:
        assert await Classifier(client, MODEL)(["a"]) == [Failure("a fault", is_final=False)]


async def test_a_pause_that_is_longer_than_one_waits_ends_it_at_once(api: FakeApi) -> None:
    api.faults.append((429, 4006, {"retry-after": "86400"}))
    async with client_of(api) as client:
        with pytest.raises(Unavailable, match="asks for a pause of 86,400 s: a fault"):
            await asyncio.wait_for(Classifier(client, MODEL)(["a"]), 4)


async def test_answers_of_another_version_are_refused(api: FakeApi) -> None:
    async with client_of(api) as client:
        model = await choose_model(client, MODEL, reranker=False)
        classifier = Classifier(client, MODEL, await model_version(client, model))
        assert isinstance((await classifier(["a"]))[0], Scores)
        api.version = "2-other"
        for texts in (["b"], ["b", "c"]):
            with pytest.raises(Refused, match="version 2-other answers, and 1-fake did"):
                await classifier(texts)


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

"""The page's form for rerankers, and batches that it queues and polls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect
from tritonclient import grpc

from tests.support.fake_triton import RERANKER, SST2, reranker
from tests.support.gateway_process import gateway_before_fake
from tests.support.harness import ACCOUNT, TOKEN
from tests.support.playground import CONTRAST, RecordedInference, Visit

CONTEXTS = ("the sea was calm", "a cook bakes good pizza", "bread and pizza")
SHIM = Path(__file__).parents[3] / "examples" / "shim" / "wrangler.jsonc"
QUERY = "who bakes good pizza"
BEST_FIRST = [1, 2, 0]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("playground")
    settings = {"GATEWAY_MAX_CONTEXTS": "4", "GATEWAY_BATCH_FOLDER": str(folder / "batches")}
    with gateway_before_fake(folder / "log", reranker(), **settings) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _chosen(visit: Visit) -> None:
    visit.page.emulate_media(reduced_motion="reduce")
    visit.enter_token()
    _choose(visit, RERANKER)


def _choose(visit: Visit, model: str) -> None:
    visit.page.get_by_label("Model").select_option(model)


def _ask(visit: Visit, *contexts: str, query: str = QUERY) -> None:
    visit.page.get_by_label("Query").fill(query)
    visit.page.get_by_label("Contexts, a blank line between two").fill("\n\n".join(contexts))
    visit.page.get_by_role("button", name="Rerank").click()


def _sent(visit: Visit) -> list[object]:
    """Bodies that the page sends to a model from now on."""
    bodies: list[object] = []

    def note(route: Route) -> None:
        bodies.append(json.loads(route.request.post_data or ""))
        route.continue_()

    visit.page.route("**/ai/run/**", note)
    return bodies


def test_contexts_are_shown_best_first(visit: Visit) -> None:
    sent = _sent(visit)
    _ask(visit, *CONTEXTS)
    answers = visit.page.locator("#answers > li")
    expect(answers).to_have_count(3)
    for place, context in enumerate(BEST_FIRST):
        assert visit.answer(place).startswith(CONTEXTS[context])
        assert f"context {context}" in visit.answer(place)
    assert re.search(r"context 1\s+88\.08 %\s*$", visit.answer(0)), "the sigmoid of 2, applied once"
    widths = "(nodes) => nodes.map((node) => node.getBoundingClientRect().width)"
    bars = visit.page.locator("#answers .bar").evaluate_all(widths)
    assert bars == sorted(bars, reverse=True)
    assert bars[0] > bars[1] > bars[2]
    expect(visit.page.locator("#answers dt.best")).to_have_text(["context 1"])
    expect(visit.page.get_by_role("status")).to_have_text(
        re.compile(r"^3 contexts in [\d.]+ ms · .+ neurons$")
    )
    assert sent == [{"query": QUERY, "contexts": [{"text": context} for context in CONTEXTS]}]


def test_as_many_as_are_asked_for_are_shown(visit: Visit) -> None:
    visit.page.get_by_label("How many of the best").fill("2")
    sent = _sent(visit)
    _ask(visit, *CONTEXTS)
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    assert visit.answer(1).startswith(CONTEXTS[2])
    assert isinstance(sent[0], dict)
    assert sent[0]["top_k"] == 2


def test_contexts_above_the_limit_are_ranked_together(visit: Visit) -> None:
    contexts = [*CONTEXTS, "nothing", "good pizza that a cook bakes", "pizza"]
    sent = _sent(visit)
    visit.page.get_by_label("How many of the best").fill("2")
    _ask(visit, *contexts)
    expect(visit.page.get_by_role("status")).to_have_text(re.compile("^6 contexts in "))
    answers = visit.page.locator("#answers > li")
    expect(answers).to_have_count(2)
    assert [answers.nth(place).locator(".text").inner_text() for place in (0, 1)] == [
        contexts[1],
        contexts[4],
    ]
    assert visit.page.locator("#answers dt").all_inner_texts() == ["context 1", "context 4"]
    # Two requests; the best two of each alone would not be the best two.
    assert [len(body["contexts"]) for body in sent if isinstance(body, dict)] == [4, 2]
    assert not any("top_k" in body for body in sent if isinstance(body, dict))


def test_the_form_follows_the_model(visit: Visit) -> None:
    query = visit.page.get_by_label("Query")
    expect(query).to_be_visible()
    _choose(visit, SST2)
    expect(query).to_be_hidden()
    visit.write("good")
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(1)
    _choose(visit, RERANKER)
    expect(query).to_be_visible()
    expect(visit.page.get_by_label("Contexts, a blank line between two")).to_have_value("good")
    expect(visit.page.get_by_role("button", name="Rerank")).to_be_visible()
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_errors_of_a_ranking_have_sentences_of_their_own(visit: Visit) -> None:
    sentence = visit.page.get_by_role("alert")
    _ask(visit, *CONTEXTS, query="")
    expect(sentence).to_have_text("Write a query.")
    expect(visit.page.get_by_label("Query")).to_be_focused()
    visit.page.get_by_label("Queue as a batch").check()
    _ask(visit, *"abcde")
    expect(sentence).to_have_text("At most 4 contexts go into one request. Remove some.")
    visit.page.get_by_label("Queue as a batch").uncheck()
    _ask(visit, "a", query="word " * 600)
    expect(sentence).to_have_text("The query is too long: nothing of a context could be read beside it.")
    visit.page.get_by_label("How many of the best").fill("1.5")
    _ask(visit, "a")
    expect(sentence).to_have_text("How many of the best: enter a whole number from 1, or nothing.")
    expect(visit.page.get_by_label("How many of the best")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(visit: Visit, scheme: str) -> None:
    visit.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    _ask(visit, *CONTEXTS)
    expect(visit.page.locator("#answers > li")).to_have_count(3)
    ratios = dict(visit.page.evaluate(CONTRAST))
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}


def _snippet(visit: Visit, tab: str) -> str:
    visit.page.get_by_label("Query").fill(QUERY)
    visit.page.get_by_label("Contexts, a blank line between two").fill("\n\n".join(CONTEXTS))
    visit.page.get_by_role("tab", name=tab, exact=True).click()
    return visit.page.locator("#snippet").inner_text()


def test_the_python_snippet_ranks(visit: Visit) -> None:
    sent: list[tuple[str, object]] = []

    class Requests:
        def post(self, url: str, headers: object, json: object) -> Requests:
            sent.append((url, json))
            return self

        def json(self) -> dict[str, str]:
            return {"result": ""}

    program = _snippet(visit, "Python").replace("import requests", "")
    exec(program, {"requests": Requests(), "print": lambda _: None})
    body = {"query": QUERY, "contexts": [{"text": context} for context in CONTEXTS]}
    assert sent == [(f"{visit.origin}/client/v4/accounts/{ACCOUNT}/ai/run/{RERANKER}", body)]


def test_the_grpc_snippet_sends_a_query_for_each_context(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[RecordedInference] = []
    program = _snippet(visit, "gRPC")
    monkeypatch.setattr(grpc, "InferenceServerClient", partial(RecordedInference, sent))
    exec(program, {"print": lambda _: None})
    (call,) = sent
    wanted = RecordedInference(sent, "127.0.0.1:8001", RERANKER, CONTEXTS, "Bearer YOUR_TOKEN")
    wanted.queries = (QUERY,) * len(CONTEXTS)
    assert call == wanted


def test_the_worker_and_curl_snippets_hold_query_and_contexts(visit: Visit) -> None:
    worker = _snippet(visit, "Worker")
    body = json.dumps(
        {"query": QUERY, "contexts": [{"text": context} for context in CONTEXTS]}, separators=(",", ":")
    )
    assert f"const input = {body};" in worker
    assert f'const {{ response }} = await env.AI.run("{RERANKER}", input);' in worker
    shim = json.loads(SHIM.read_text(encoding="utf-8"))
    binding = f'"services": [{{ "binding": "AI", "service": "{shim["name"]}" }}] (examples/shim)'
    assert worker.splitlines()[0] == f"// wrangler.jsonc: {binding}"
    assert f"-d '{body}'" in _snippet(visit, "curl")
    assert TOKEN not in worker


def test_a_queued_ranking_is_polled_until_it_is_done(visit: Visit) -> None:
    visit.page.get_by_label("Queue as a batch").check()
    sent = _sent(visit)
    _ask(visit, *CONTEXTS)
    expect(visit.page.locator("#answers > li")).to_have_count(3)
    assert visit.answer(0).startswith(CONTEXTS[1])
    assert sent[0] == {"requests": [{"query": QUERY, "contexts": [{"text": each} for each in CONTEXTS]}]}
    polls = sent[1:]
    assert len(polls) >= 1
    assert all(isinstance(poll, dict) and list(poll) == ["request_id"] for poll in polls)


def test_a_batch_of_texts_shows_its_status_while_it_waits(visit: Visit) -> None:
    _choose(visit, SST2)
    visit.page.get_by_label("Queue as a batch").check()
    states = iter(["queued", "running"])
    questions = []

    def slow(route: Route) -> None:
        """Let the gateway queue the batch, and have it take longer than it does."""
        question = json.loads(route.request.post_data or "")
        questions.append((route.request.url.partition("?")[2], list(question)))
        state = next(states, None)
        if state is None:
            route.continue_()
            return
        answer = route.fetch()
        assert answer.ok
        identifier = question.get("request_id") or answer.json()["result"]["request_id"]
        result = {"status": state, "request_id": identifier, "model": SST2}
        route.fulfill(json={"result": result, "success": True, "errors": [], "messages": []})

    visit.page.route("**/ai/run/**", slow)
    visit.write("good", "bad")
    visit.classify()
    expect(visit.page.get_by_role("status")).to_contain_text("The batch is queued.")
    expect(visit.page.get_by_role("status")).to_contain_text("The batch is running.")
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    expect(visit.page.get_by_role("status")).to_have_text(re.compile("^2 texts in "))
    assert questions[0] == ("queueRequest=true", ["requests"])
    assert len(questions) >= 3
    assert set(map(str, questions[1:])) == {str(("queueRequest=true", ["request_id"]))}


def test_the_choice_to_queue_says_when_a_batch_is_answered(visit: Visit) -> None:
    queue = visit.page.get_by_label("Queue as a batch")
    expect(queue).to_have_accessible_description("Answered when the server is idle.")


def test_snippets_of_a_queued_batch_show_how_it_is_fetched(visit: Visit) -> None:
    visit.page.get_by_label("Queue as a batch").check()
    for tab in ("curl", "Python", "JavaScript"):
        snippet = _snippet(visit, tab)
        assert f"{RERANKER}?queueRequest=true" in snippet
        assert '"requests":[{"query"' in snippet
        assert 'the same URL with {"request_id"' in snippet
    worker = _snippet(visit, "Worker")
    assert worker.count("{ queueRequest: true }") == 2
    assert "request_id: batch.request_id" in worker

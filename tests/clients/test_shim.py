"""``examples/shim`` under today's tools: the AI binding without a login and without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.clients.checks import MODEL, TEXT, UUID, check_scores
from tests.support.clients.fake_reranker import gateway_with_reranker
from tests.support.clients.loopback_only import loopback_only
from tests.support.clients.node import LATEST, example, require_latest
from tests.support.clients.shim import (
    SHIM,
    Recorder,
    dev_command,
    put_project,
    put_shim,
    recording,
    run_program,
    tools,
)
from tests.support.clients.wrangler import wrangler_dev
from tests.support.fake_triton import RERANKER
from tests.support.servers import ACCOUNT, TOKEN, Program, wait_until

WITHOUT_NODE = True
"""Today's tools bring a node of their own."""

MISSING_TEXT = "5006: Error: required properties at '/' are 'text'"
PREFIX = "/behind/a/proxy"
"""Of the address that the shim ``recorded`` has."""
GOOD = {"run": [MODEL, {"text": TEXT}]}


@pytest.fixture(scope="module")
def node() -> str:
    return require_latest()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home: nobody has logged in. Development servers that share it find each other."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def project(node: str, tmp_path_factory: pytest.TempPathFactory, gateway: Program) -> Path:
    return put_project(tmp_path_factory.mktemp("project") / "project", gateway.url)


@pytest.fixture(scope="module")
def recorder() -> Iterator[str]:
    with recording() as url:
        yield url


@pytest.fixture(scope="module")
def reranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A gateway with a reranker that queues batches and caches answers."""
    batches = str(tmp_path_factory.mktemp("batches"))
    with gateway_with_reranker(GATEWAY_BATCH_FOLDER=batches, GATEWAY_CACHE_BYTES="1048576") as program:
        yield program


@pytest.fixture(scope="module")
def dev(
    node: str, project: Path, home: Path, gateway: Program, recorder: str, reranking: Program
) -> Iterator[str]:
    """The project under ``wrangler dev``, beside copies of the shim for other servers or without a token."""
    copies = {
        "without-token": ("", gateway.url),
        "with-wrong-token": ("wrong", gateway.url),
        "without-server": (TOKEN, "http://127.0.0.1:9"),
        "recorded": (TOKEN, recorder + PREFIX),
        "reranking": (TOKEN, reranking.url),
    }
    for name, (token, url) in copies.items():
        config = put_shim(project / name, url, token) / "wrangler.jsonc"
        config.write_text(config.read_text().replace("tritonflare-ai", name))
    shims = [f"{name}/wrangler.jsonc" for name in ("shim", *copies)]
    command = dev_command(node, "wrangler.more.jsonc", "wrangler.year-old.jsonc", *shims)
    with wrangler_dev(command, project, tools(home)) as url:
        yield url


def seen(url: str, *calls: dict[str, Any], **how: str) -> list[dict[str, Any]]:
    """What the project's Worker sees of these calls of ``env.AI``."""
    answer = httpx.post(url, json={"calls": calls} | how, timeout=30)
    assert answer.status_code == 200, answer.text
    reported: list[dict[str, Any]] = answer.json()
    return reported


def test_the_shim_is_a_file_of_sixty_lines_at_most() -> None:
    lines = (SHIM / "src" / "index.js").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120


def test_the_example_runs_under_wrangler_without_login_or_network(
    node: str, tmp_path: Path, gateway: Program
) -> None:
    folder = example(tmp_path, LATEST)
    put_shim(tmp_path / "shim", gateway.url)
    wrangler = [*dev_command(node, "wrangler.jsonc", "../shim/wrangler.jsonc"), "--ip", "127.0.0.1"]
    with (
        loopback_only(gateway.url, tmp_path) as (prefix, get),
        wrangler_dev([*prefix, *wrangler], folder, tools(tmp_path)) as url,
    ):
        check_scores(json.loads(get(url)))


@pytest.mark.parametrize("within", ["worker", "object"])
def test_models_run_and_errors_are_the_binding_s(dev: str, within: str) -> None:
    good, *bad = seen(
        dev,
        GOOD,
        {"run": [MODEL, {}]},
        {"run": [MODEL]},
        {"run": [MODEL, None, None]},
        {"run": ["@cf/no/model", {"text": "a"}]},
        {"run": ["../../../user/tokens/verify", {"text": "a"}]},
        {"run": [MODEL, {"text": ["a", "b"]}]},
        within=within,
    )
    check_scores(good["result"])
    assert [(each["error"]["name"], each["error"]["message"]) for each in bad] == [
        ("AiError", MISSING_TEXT),
        ("AiError", MISSING_TEXT),
        ("AiError", MISSING_TEXT),
        ("AiError", "5007: No such model @cf/no/model or task"),
        ("AiError", "5007: No such model ../../../user/tokens/verify or task"),
        ("AiError", "5006: Error: Type mismatch of '/text', 'string' not in 'array','binary'"),
    ]


def test_an_old_compatibility_date_folds_the_error_s_name_into_the_message(dev: str) -> None:
    good, bad = seen(dev, GOOD, {"run": [MODEL, {}]}, within="year-old")
    check_scores(good["result"])
    assert bad["error"] == {"name": "Error", "message": f"AiError: {MISSING_TEXT}"}


def test_models_are_listed(dev: str) -> None:
    everything, none, refused = seen(
        dev, {"models": {"per_page": 5}}, {"models": {"search": "llama"}}, {"models": {"page": "x"}}
    )
    assert [model["name"] for model in everything["result"]] == [MODEL]
    assert none["result"] == []
    # The binding gives this the name and the message of REST, too.
    assert refused["error"]["name"] == "AiInternalError"
    assert refused["error"]["message"].startswith("AiError: Bad input: Error: query parameter 'page' must be")


def test_a_batch_is_answered_like_a_poll(dev: str) -> None:
    requests = [{"text": TEXT, "external_reference": "first"}, {"text": ""}]
    (batch,) = seen(dev, {"run": [MODEL, {"requests": requests}, {"queueRequest": True}]})
    first, failed = batch["result"]["responses"]
    check_scores(first["result"])
    assert (first["id"], first["success"], first["external_reference"]) == (0, True, "first")
    assert (failed["success"], failed["errors"][0]["code"]) == (False, 5006)
    assert batch["result"]["usage"]["total_tokens"] > 0


def test_contexts_are_ranked(dev: str) -> None:
    contexts = [{"text": text} for text in ("the waiter was rude", "this pizza is great", "a pizza")]
    inputs = {"query": "which pizza is great", "contexts": contexts}
    ranked, cut, *refused = seen(
        dev,
        {"run": [RERANKER, inputs]},
        {"run": [RERANKER, inputs | {"top_k": 1}]},
        {"run": [RERANKER, {"contexts": contexts}]},  # as the types of workerd have it
        {"run": [RERANKER, inputs | {"contexts": ["a pizza"]}]},
        binding="RERANKING",
    )
    assert [entry["id"] for entry in ranked["result"]["response"]] == [1, 2, 0]
    assert [entry["id"] for entry in cut["result"]["response"]] == [1]
    assert ranked["result"]["usage"]["prompt_tokens"] > 0
    assert [each["error"] for each in refused] == [
        {"name": "AiError", "message": "5006: Error: required properties at '/' are 'query,contexts'"},
        {
            "name": "AiError",
            "message": "5006: Error: Type mismatch of '/contexts/0', 'object' not in 'string'",
        },
    ]


def test_a_queued_batch_is_polled_for(dev: str) -> None:
    requests = [{"text": TEXT, "external_reference": "first"}, {"text": ""}]
    (queued,) = seen(
        dev, {"run": [MODEL, {"requests": requests}, {"queueRequest": True}]}, binding="RERANKING"
    )
    request_id = queued["result"]["request_id"]
    assert queued["result"] == {"status": "queued", "request_id": request_id, "model": MODEL}
    polls: list[dict[str, Any]] = []

    def done() -> bool:
        poll, unknown = ({"run": [MODEL, {"request_id": each}]} for each in (request_id, "0"))
        polls[:] = seen(dev, poll, unknown, binding="RERANKING")
        return "responses" in polls[0]["result"]

    assert wait_until(done, 20)
    first, failed = polls[0]["result"]["responses"]
    assert [entry["label"] for entry in first["result"]] == ["NEGATIVE", "POSITIVE"]
    assert (first["external_reference"], failed["success"]) == ("first", False)
    assert polls[1]["error"]["message"].startswith("5006: Error: '/request_id' is not known")


def test_raw_responses_are_those_of_the_binding(dev: str) -> None:
    good, bad = seen(
        dev,
        {"run": [MODEL, {"text": TEXT}, {"returnRawResponse": True}]},
        {"run": [MODEL, {}, {"returnRawResponse": True}]},
    )
    check_scores(json.loads(good["raw"]["body"]))
    assert good["raw"]["status"] == 200
    assert UUID.fullmatch(good["raw"]["headers"]["cf-ai-req-id"])
    assert float(good["raw"]["headers"]["cf-ai-neurons"]) > 0
    assert int(good["raw"]["headers"].get("content-length", len(good["raw"]["body"]))) == len(
        good["raw"]["body"]
    )
    assert bad["raw"]["status"] == 400
    assert json.loads(bad["raw"]["body"]) == {
        "internalCode": 5006,
        "httpCode": 400,
        "name": "AiError",
        "message": f"AiError: Bad input: {MISSING_TEXT.removeprefix('5006: ')}",
        "description": MISSING_TEXT.removeprefix("5006: "),
    }


def test_the_gateway_s_methods_lead_here(dev: str, gateway: Program) -> None:
    request = {"provider": "workers-ai", "endpoint": MODEL, "headers": {}, "query": {"text": TEXT}}
    with_token = request | {"headers": {"authorization": "Bearer of-somebody-else"}}
    elsewhere = request | {"provider": "openai"}
    one, fallback, none, provider, universal = seen(
        dev,
        {"gateway": ["mine", "run", with_token]},
        {"gateway": ["mine", "run", [elsewhere, request]]},
        {"gateway": ["mine", "run", [elsewhere]]},
        {"gateway": ["mine", "getUrl", "workers-ai"]},
        {"gateway": ["mine", "getUrl"]},
    )
    for place, answered in enumerate((one, fallback)):
        check_scores(json.loads(answered["raw"]["body"])["result"])
        assert answered["raw"]["headers"]["cf-aig-step"] == str(place)
    (error,) = json.loads(none["raw"]["body"])["errors"]
    assert error["code"] == 5006
    assert "provider 'openai' is not served here" in error["message"]
    assert provider["result"] == f"{gateway.url}/v1/{ACCOUNT}/mine/workers-ai"
    assert universal["result"] == f"{gateway.url}/v1/{ACCOUNT}/mine/"


def test_the_gateway_s_run_answers_no_steps_and_no_options_as_the_api_does(dev: str) -> None:
    request = {"provider": "workers-ai", "endpoint": f"run/{MODEL}", "headers": {}, "query": {"text": TEXT}}
    given: list[list[Any]] = [[[]], [request, None], [request, {}]]
    nothing, *answered = seen(dev, *({"gateway": ["mine", "run", *each]} for each in given))
    (error,) = json.loads(nothing["raw"]["body"])["errors"]
    assert (nothing["raw"]["status"], error["code"]) == (400, 5006)
    assert "Length of '/' must be >= 1" in error["message"]
    for each in answered:
        check_scores(json.loads(each["raw"]["body"])["result"])


def test_the_gateway_s_run_sends_all_steps_and_its_options_in_one_request(dev: str) -> None:
    Recorder.answer = (200, "application/json", "{}")
    Recorder.requests.clear()
    steps = [
        {
            "provider": "openai",
            "endpoint": "chat",
            "headers": {},
            "query": {},
            "config": {"requestTimeout": 5},
        },
        {"provider": "workers-ai", "endpoint": MODEL, "headers": {"a": "b"}, "query": {"text": TEXT}},
    ]
    options = {"gateway": {"skipCache": True, "requestTimeoutMs": 500}, "extraHeaders": {"x-mine": "1"}}
    answered, url = seen(
        dev,
        {"gateway": ["mine", "run", steps, options]},
        {"gateway": ["mine", "getUrl", "workers-ai"]},
        binding="RECORDED",
    )
    assert answered["raw"]["status"] == 200
    ((path, headers, body),) = Recorder.requests
    assert (path, body) == (f"{PREFIX}/v1/{ACCOUNT}/mine", steps)
    assert url["result"].endswith(f"{PREFIX}/v1/{ACCOUNT}/mine/workers-ai")
    sent = {name: value for name, value in headers.items() if name.startswith(("cf-aig", "x-mine"))}
    assert sent == {"cf-aig-skip-cache": "true", "cf-aig-request-timeout": "500", "x-mine": "1"}


def test_the_gateway_s_options_reach_the_cache_and_the_deadline(dev: str) -> None:
    def run(**options: Any) -> dict[str, Any]:
        return {
            "run": [
                MODEL,
                {"text": "cached"},
                {"returnRawResponse": True, "gateway": {"id": "mine"} | options},
            ]
        }

    answers = seen(dev, run(), run(), run(skipCache=True), run(cacheTtl="soon"), binding="RERANKING")
    *answered, refused = (each["raw"] for each in answers)
    assert [raw["headers"].get("cf-aig-cache-status") for raw in answered] == ["MISS", "HIT", "MISS"]
    assert "cf-aig-cache-ttl" in json.loads(refused["body"])["description"]


def test_a_signal_ends_the_wait_and_a_signal_that_stays_quiet_does_not(dev: str) -> None:
    long = {"requests": [{"text": "So good. " * 400 + str(number)} for number in range(60)]}
    aborted, good = seen(
        dev,
        {"run": [MODEL, long], "abort_ms": 20},
        {"run": [MODEL, {"text": TEXT}], "abort_ms": 20_000},
    )
    assert aborted["error"]["name"] == "TimeoutError"
    check_scores(good["result"])
    # This Worker has not the flag that a signal needs.
    (refused,) = seen(dev, {"run": [MODEL, {"text": TEXT}], "abort_ms": 20_000}, within="year-old")
    assert refused["error"]["name"] == "DataCloneError"


@pytest.mark.parametrize(
    ("binding", "name", "message"),
    [
        ("WITHOUT_TOKEN", "Error", "Set CLOUDFLARE_API_TOKEN in the shim's file .dev.vars"),
        ("WITH_WRONG_TOKEN", "InferenceUpstreamError", "10000: Authentication error"),
        (
            "WITHOUT_SERVER",
            "Error",
            "No answer from http://127.0.0.1:9. Is the server running? `make serve` starts one.",
        ),
    ],
)
def test_the_shim_says_what_it_lacks(dev: str, binding: str, name: str, message: str) -> None:
    (run,) = seen(dev, GOOD, binding=binding)
    assert run["error"] == {"name": name, "message": message}


def test_options_become_headers_and_a_poll_is_sent_as_documented(dev: str) -> None:
    Recorder.answer = (200, "application/json", '{"result":{"status":"queued"},"errors":[],"success":true}')
    Recorder.requests.clear()
    gateway = {"id": "mine", "skipCache": True, "cacheTtl": 60, "requestTimeoutMs": 500, "metadata": {"a": 1}}
    options = {"gateway": gateway, "extraHeaders": {"x-mine": "1", "authorization": "Bearer other"}}
    run, poll = seen(
        dev,
        {"run": [MODEL, {"text": TEXT}, options]},
        {"run": [MODEL, {"request_id": "an-id"}]},
        binding="RECORDED",
    )
    assert run["result"] == poll["result"] == {"status": "queued"}
    (path, headers, body), (poll_path, _, poll_body) = Recorder.requests
    url = f"{PREFIX}/client/v4/accounts/{ACCOUNT}/ai/run/%40cf%2Fhuggingface%2Fdistilbert-sst-2-int8"
    assert (path, body) == (url, {"text": TEXT})
    assert (poll_path, poll_body) == (f"{url}?queueRequest=true", {"request_id": "an-id"})
    sent = {name: value for name, value in headers.items() if name.startswith(("cf-aig", "x-mine"))}
    assert sent == {
        "cf-aig-gateway-id": "mine",
        "cf-aig-skip-cache": "true",
        "cf-aig-cache-ttl": "60",
        "cf-aig-request-timeout": "500",
        "x-mine": "1",
    }
    assert headers["authorization"] == f"Bearer {TOKEN}"


def test_what_is_no_answer_of_the_api_becomes_the_message(dev: str) -> None:
    page = "<html>502 Bad Gateway</html>"
    Recorder.answer = (502, "text/html", page)
    thrown, raw = seen(
        dev, GOOD, {"run": [MODEL, {"text": TEXT}, {"returnRawResponse": True}]}, binding="RECORDED"
    )
    assert thrown["error"] == {"name": "InferenceUpstreamError", "message": page}
    assert (raw["raw"]["status"], raw["raw"]["body"]) == (502, page)


def test_frameworks_get_the_binding_by_get_platform_proxy(
    node: str, dev: str, project: Path, home: Path
) -> None:
    calls = [
        GOOD,
        {"run": [MODEL, {}]},
        {"models": {}},
        {"run": [MODEL, {"text": TEXT}, {"returnRawResponse": True}]},
    ]
    config = str(project / "wrangler.jsonc")
    good, bad, models, raw = run_program(node, home, "platform_proxy.mjs", config=config, calls=calls)
    check_scores(good["result"])
    # Its own Worker has an old compatibility date.
    assert bad["error"] == {"name": "Error", "message": f"AiError: {MISSING_TEXT}"}
    assert [model["name"] for model in models["result"]] == [MODEL]
    check_scores(json.loads(raw["raw"]["body"]))

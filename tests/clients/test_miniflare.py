"""Workers in miniflare: every generation of the binding, by both ways to this gateway."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.checks import MODEL, TEXT, UUID, check_scores
from tests.support.clients.node import drive, environment, example, node, require_node
from tests.support.servers import TOKEN, Program

GOOD = {"run": [MODEL, {"text": TEXT}]}
BAD = [
    ({"run": [MODEL, {}]}, 5006, "Error: required properties at '/' are 'text'"),
    ({"run": [MODEL, {"text": ""}]}, 5006, "Error: Length of '/text' must be >= 1 not met"),
    ({"run": ["@cf/no/model", {"text": "a"}]}, 5007, "No such model @cf/no/model or task"),
]
Way = dict[str, Any]


@pytest.fixture(params=["connection", "wrapped"])
def way(request: pytest.FixtureRequest, gateway: Program, open_gateway: Program) -> Way:
    """The AI plugin, which cannot send a token, and the wrapped binding, which can."""
    if request.param == "connection":
        return {"way": "connection", "gateway": open_gateway.url}
    return {"way": "wrapped", "gateway": gateway.url, "token": TOKEN}


@pytest.mark.parametrize("native", [True, False], ids=["native", "@cloudflare/ai 1.2.2"])
def test_the_binding_shows_scores_request_ids_and_errors(tmp_path: Path, way: Way, native: bool) -> None:
    calls = [GOOD, *(call for call, _, _ in BAD)]
    good, *bad = drive(tmp_path, [call | {"native": native} for call in calls], **way)
    check_scores(good["result"])
    assert UUID.fullmatch(good["lastRequestId"])
    for seen, (_, code, description) in zip(bad, BAD, strict=True):
        assert seen["error"] == {"name": "AiError", "message": f"{code}: {description}"}
        # The package takes the id over from the binding only after a success.
        assert UUID.fullmatch(seen["lastRequestId"]) if native else seen["lastRequestId"] == ""


def test_the_native_binding_lists_models_and_hands_out_raw_responses(tmp_path: Path, way: Way) -> None:
    calls: list[dict[str, Any]] = [
        {"models": {"page": 1}},
        {"models": {"page": 2}},
        {"run": [MODEL, {}, {"returnRawResponse": True}]},
        {"run": [MODEL, {"text": TEXT}, {"gateway": {"id": "mine"}}]},
        {"run": [MODEL, {"text": TEXT}, {"prefix": "canary"}]},
        {"run": [MODEL, {"text": TEXT}, {"websocket": True}]},
    ]
    first, second, raw, logged, prefixed, socket = drive(
        tmp_path, [call | {"native": True} for call in calls], **way
    )
    assert MODEL in [model["name"] for model in first["result"]]
    assert second["result"] == []
    assert raw["raw"]["status"] == 400
    assert json.loads(raw["raw"]["body"])["internalCode"] == 5006
    check_scores(logged["result"])
    check_scores(prefixed["result"])
    # A websocket is asked for with the raw response, so the binding throws nothing.
    refused = json.loads(socket["raw"]["body"])
    assert refused["description"] == "Error: option 'websocket' is not supported by this server"


def test_the_native_binding_gets_a_batch_answered_at_once(tmp_path: Path, way: Way) -> None:
    requests = [{"text": TEXT, "external_reference": "first"}, {"text": ""}, {"text": TEXT}]
    calls: list[dict[str, Any]] = [
        {"run": [MODEL, {"requests": requests}, {"queueRequest": True}]},
        {"run": [MODEL, {"request_id": "0"}]},
    ]
    finished, poll = drive(tmp_path, [call | {"native": True} for call in calls], **way)
    first, failed, second = finished["result"]["responses"]
    assert (first["id"], first["external_reference"], first["success"]) == (0, "first", True)
    for answered in (first, second):
        check_scores(answered["result"])
    assert (failed["success"], failed["errors"][0]["code"]) == (False, 5006)
    assert finished["result"]["usage"]["total_tokens"] > 0
    words = "5006: Error: '/request_id' is not known, a batch is answered at once"
    assert poll["error"] == {"name": "AiError", "message": words}


@pytest.mark.parametrize("kind", ["connection", "wrapped"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "@cloudflare/ai 1.2.2"])
def test_the_binding_submits_a_batch_and_polls_for_it(
    tmp_path: Path, queueing_gateway: Program, kind: str, native: bool
) -> None:
    way: Way = {"way": kind, "gateway": queueing_gateway.url}
    if kind == "wrapped":
        way["token"] = TOKEN
    requests = [{"text": TEXT, "external_reference": "first"}, {"text": ""}]
    # The package passes on what its constructor is given, as options of every call.
    settings = {} if native else {"settings": {"queueRequest": True}}
    submit = {"native": native, "run": [MODEL, {"requests": requests}, {"queueRequest": True}]} | settings
    accepted = drive(tmp_path, [submit], **way)[0]["result"]
    assert accepted == {"status": "queued", "request_id": accepted["request_id"], "model": MODEL}
    assert UUID.fullmatch(accepted["request_id"])
    poll = {"native": native, "run": [MODEL, {"request_id": accepted["request_id"]}]}
    unknown = {"native": native, "run": [MODEL, {"request_id": "0"}]}
    for _ in range(20):
        polled, refused = drive(tmp_path, [poll, unknown], **way)
        words = "5006: Error: '/request_id' is not known, or its result has expired"
        assert refused["error"] == {"name": "AiError", "message": words}
        if "responses" in polled["result"]:
            break
        assert polled["result"]["status"] in ("queued", "running")
    first, failed = polled["result"]["responses"]
    assert (first["id"], first["external_reference"], first["success"]) == (0, "first", True)
    check_scores(first["result"])
    assert (failed["success"], failed["errors"][0]["code"]) == (False, 5006)
    assert list(polled["result"]) == ["responses", "usage"]


@pytest.mark.parametrize("version", ["1.1.0", "1.0.53"])
def test_older_packages_work(tmp_path: Path, way: Way, version: str) -> None:
    good, bad = drive(tmp_path, [GOOD, {"run": [MODEL, {"text": ""}]}], ai=f"ai-{version}", **way)
    check_scores(good["result"])
    assert UUID.fullmatch(good["lastRequestId"])
    # These throw the whole body as the message.
    assert bad["error"]["name"] == "InferenceUpstreamError"
    assert json.loads(bad["error"]["message"])["internalCode"] == 5006


def test_package_1_1_shows_logs_when_asked_to_debug(tmp_path: Path, way: Way) -> None:
    (seen,) = drive(tmp_path, [GOOD | {"settings": {"debug": True}}], ai="ai-1.1.0", **way)
    check_scores(seen["result"])
    assert seen["logs"][0]["truncated"] is False


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_missing_or_wrong_token_reaches_the_worker_as_an_error(
    tmp_path: Path, gateway: Program, token: str | None
) -> None:
    for way in ("wrapped",) if token else ("wrapped", "connection"):
        (seen,) = drive(tmp_path, [GOOD | {"native": True}], way=way, gateway=gateway.url, token=token)
        words = (
            "10000: Authentication error"
            if token
            else "9106: Missing X-Auth-Key, X-Auth-Email or Authorization headers"
        )
        assert seen["error"] == {"name": "InferenceUpstreamError", "message": words}


def test_a_worker_can_bring_the_token_itself(tmp_path: Path, gateway: Program) -> None:
    options = {"extraHeaders": {"Authorization": f"Bearer {TOKEN}"}}
    call = {"native": True, "run": [MODEL, {"text": TEXT}, options]}
    (seen,) = drive(tmp_path, [call], way="connection", gateway=gateway.url)
    check_scores(seen["result"])


def test_with_the_switch_a_wrapped_binding_needs_no_token_either(
    tmp_path: Path, open_gateway: Program
) -> None:
    # Listing models it sends nothing but the binding's Host.
    calls: list[dict[str, Any]] = [{"models": {"page": 1}, "native": True}, GOOD | {"native": True}]
    listed, run = drive(tmp_path, calls, way="wrapped", gateway=open_gateway.url)
    assert MODEL in [model["name"] for model in listed["result"]]
    check_scores(run["result"])


@pytest.mark.parametrize("worker", ["src/index.ts", "src/native.ts"])
def test_the_example_runs_in_miniflare_as_it_stands(
    tmp_path: Path, worker: str, gateway: Program, open_gateway: Program
) -> None:
    folder = example(tmp_path)
    env = environment(tmp_path, GATEWAY=open_gateway.url)
    check_scores(json.loads(node(folder, "miniflare.mjs", worker, env=env)))
    env = environment(tmp_path, GATEWAY=gateway.url, TOKEN=TOKEN)
    check_scores(json.loads(node(folder, "miniflare-token.mjs", worker, env=env)))


def test_the_example_with_a_token_reports_a_missing_one(tmp_path: Path, gateway: Program) -> None:
    folder = example(tmp_path)
    for token in ({}, {"TOKEN": ""}):
        env = environment(tmp_path, GATEWAY=gateway.url, **token)
        done = subprocess.run(
            ["node", "miniflare-token.mjs"], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "Set TOKEN to an API token of the gateway: make serve prints one.\n"


@pytest.mark.parametrize("program", ["miniflare.mjs", "miniflare-token.mjs"])
def test_the_example_reports_a_missing_gateway(tmp_path: Path, program: str) -> None:
    require_node()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        env = environment(tmp_path, GATEWAY=nobody, TOKEN=TOKEN)
        done = subprocess.run(
            ["node", program], cwd=example(tmp_path), env=env, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Nobody answers at {nobody}. Is make serve running?\n"


def universal(*steps: dict[str, Any], gateway: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"gateway": {"id": "mine", "run": [list(steps), {"gateway": gateway or {}}]}, "native": True}


def step(
    endpoint: str, provider: str = "workers-ai", headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"provider": provider, "endpoint": endpoint, "headers": headers or {}, "query": {"text": TEXT}}


def test_the_bindings_gateway_runs_and_gives_its_address(tmp_path: Path, way: Way) -> None:
    calls: list[dict[str, Any]] = [
        universal(step(MODEL)),
        universal(step("chat/completions", "openai"), step("@cf/no/model"), step(f"run/{MODEL}")),
        universal(
            step(MODEL, headers={"cf-aig-cache-ttl": 3600, "cf-aig-skip-cache": True}),
            gateway={"skipCache": False},
        ),
        universal(step("chat/completions", "openai")),
        universal(step(MODEL), gateway={"requestTimeoutMs": 0}),
        {"gateway": {"id": "mine", "getUrl": []}, "native": True},
        {"gateway": {"id": "mine", "getUrl": ["workers-ai"]}, "native": True},
        {"gateway": {"id": "mine", "getUrl": ["openai"]}, "native": True},
        {"gateway": {"id": "mine", "getLog": ["1"]}, "native": True},
        {"gateway": {"id": "mine", "patchLog": ["1", {"score": 1}]}, "native": True},
    ]
    *ran, base, url, foreign, log, patched = drive(tmp_path, calls, **way)
    answered, refused = ran[:3], ran[3:]
    for seen, index in zip(answered, ("0", "2", "0"), strict=True):
        assert (seen["raw"]["status"], seen["raw"]["step"]) == (200, index), seen
        check_scores(json.loads(seen["raw"]["body"])["result"])
    words = [json.loads(seen["raw"]["body"])["errors"][0]["message"] for seen in refused]
    assert "provider 'openai' is not served here, only 'workers-ai' is" in words[0]
    assert "header 'cf-aig-request-timeout' must be an integer from 1 to" in words[1]
    assert base["result"].startswith(f"{way['gateway']}/v1/")
    assert url["result"] == base["result"] + "workers-ai"
    assert "provider 'openai' is not served here" in foreign["error"]["message"]
    for seen in (log, patched):
        assert seen["error"] == {
            "name": "AiGatewayLogNotFound",
            "message": "This server keeps no logs of requests",
        }


def test_the_gateway_among_the_options_shortens_the_wait(tmp_path: Path, way: Way) -> None:
    run = [MODEL, {"text": TEXT}]
    given: list[dict[str, Any]] = [{"requestTimeoutMs": "1"}, {"requestTimeoutMs": 60_000, "skipCache": True}]
    calls = [{"run": [*run, {"gateway": {"id": "mine"} | each}], "native": True} for each in given]
    bad, good = drive(tmp_path, calls, **way)
    words = "5006: Error: Type mismatch of '/options/gateway/requestTimeoutMs', 'integer' not in 'string'"
    assert bad["error"] == {"name": "AiError", "message": words}
    check_scores(good["result"])

"""The newest ``cloudflare`` of npm, with nothing changed but its base URL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedded.server import TritonServer
from tests.support.clients.checks import MODEL, TEXT, check_scores
from tests.support.clients.node import JS, environment, node
from tests.support.clients.refusing_gateways import (
    REFUSALS,
    Refusal,
    occupied_until_someone_is_refused,
    requests_seen,
)
from tests.support.servers import ACCOUNT, TOKEN, Program

RUN = ["ai.run", MODEL, {"account_id": ACCOUNT, "text": TEXT}]


def sdk(home: Path, gateway: Program, *calls: list[Any], **options: Any) -> list[dict[str, Any]]:
    """Let the SDK's client make ``calls``, each a method's path and arguments; see sdk.mjs."""
    given = {"apiToken": TOKEN, "baseURL": f"{gateway.url}/client/v4"} | options
    stdin = json.dumps({"options": given, "calls": calls})
    seen: list[dict[str, Any]] = json.loads(node(JS, "sdk.mjs", stdin=stdin, env=environment(home)))
    return seen


def test_a_text_is_classified_with_the_model_name_percent_encoded(tmp_path: Path, gateway: Program) -> None:
    (seen,) = sdk(tmp_path, gateway, RUN)
    check_scores(seen["result"])
    assert [request["path"] for request in seen["requests"]] == [
        f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf%2Fhuggingface%2Fdistilbert-sst-2-int8"
    ]


def test_the_path_with_slashes_works_too(tmp_path: Path, gateway: Program) -> None:
    (seen,) = sdk(
        tmp_path, gateway, ["post", f"/accounts/{ACCOUNT}/ai/run/{MODEL}", {"body": {"text": TEXT}}]
    )
    check_scores(seen["result"]["result"])


def test_several_texts_in_one_request(tmp_path: Path, gateway: Program) -> None:
    requests = [{"text": TEXT, "external_reference": "good"}, {"text": ""}]
    (seen,) = sdk(
        tmp_path,
        gateway,
        ["ai.run", MODEL, {"account_id": ACCOUNT, "requests": requests}, {"query": {"queueRequest": True}}],
    )
    good, bad = seen["result"]["responses"]
    check_scores(good["result"])
    assert (good["external_reference"], bad["success"]) == ("good", False)
    assert bad["errors"][0]["code"] == 5006


def test_a_batch_is_queued_and_fetched(tmp_path: Path, queueing_gateway: Program) -> None:
    queued = {"query": {"queueRequest": True}}
    body = {"account_id": ACCOUNT, "requests": [{"text": TEXT, "external_reference": "good"}, {"text": ""}]}
    (accepted,) = sdk(tmp_path, queueing_gateway, ["ai.run", MODEL, body, queued])
    request_id = accepted["result"]["request_id"]
    assert accepted["result"] == {"status": "queued", "request_id": request_id, "model": MODEL}
    for _ in range(20):
        poll = ["ai.run", MODEL, {"account_id": ACCOUNT, "request_id": request_id}, queued]
        (polled,) = sdk(tmp_path, queueing_gateway, poll)
        if "responses" in polled["result"]:
            break
    good, bad = polled["result"]["responses"]
    check_scores(good["result"])
    assert (good["external_reference"], bad["success"]) == ("good", False)


def test_listing_models_ends_after_the_first_empty_page(tmp_path: Path, gateway: Program) -> None:
    before = requests_seen(gateway)
    all_of_them, filtered, none = sdk(
        tmp_path,
        gateway,
        ["ai.models.list", {"account_id": ACCOUNT}],
        ["ai.models.list", {"account_id": ACCOUNT, "task": "Text Classification", "per_page": 1}],
        ["ai.models.list", {"account_id": ACCOUNT, "search": "llama"}],
    )
    assert [model["name"] for model in all_of_them["result"]] == [MODEL]
    assert filtered["result"] == all_of_them["result"]
    assert none["result"] == []
    # One request for each page with something on it, and one to see that the next is empty.
    assert [len(seen["requests"]) for seen in (all_of_them, filtered, none)] == [2, 2, 1]
    assert requests_seen(gateway) - before == 5


def test_the_siblings_answer(tmp_path: Path, gateway: Program) -> None:
    schema, tasks, authors, of_user, of_account = (
        seen["result"]
        for seen in sdk(
            tmp_path,
            gateway,
            ["ai.models.schema.get", {"account_id": ACCOUNT, "model": MODEL}],
            ["ai.tasks.list", {"account_id": ACCOUNT}],
            ["ai.authors.list", {"account_id": ACCOUNT}],
            ["user.tokens.verify"],
            ["accounts.tokens.verify", {"account_id": ACCOUNT}],
        )
    )
    assert schema["input"]["required"] == ["text"]
    assert [task["name"] for task in tasks] == ["Text Classification"]
    assert [author["name"] for author in authors] == ["huggingface"]
    assert of_user == of_account
    assert of_user["status"] == "active"


def test_an_unknown_token_is_not_verified(tmp_path: Path, gateway: Program) -> None:
    (seen,) = sdk(tmp_path, gateway, ["user.tokens.verify"], apiToken="wrong")
    assert seen["error"]["kind"] == "AuthenticationError"
    assert [error["code"] for error in seen["error"]["errors"]] == [1000]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_refusal_is_the_sdk_s_exception_with_the_code_of_the_api(
    tmp_path: Path, refusal: Refusal, request: pytest.FixtureRequest
) -> None:
    gateway: Program = request.getfixturevalue(refusal.gateway)
    before = requests_seen(gateway, code=str(refusal.code), status=str(refusal.status))
    (seen,) = sdk(
        tmp_path,
        gateway,
        ["ai.run", refusal.model, {"account_id": refusal.account, "text": refusal.text}],
        apiToken=refusal.token,
        maxRetries=refusal.retries,
    )
    error = seen["error"]
    assert (error["kind"], error["status"]) == (refusal.kind or "APIError", refusal.status)
    assert [each["code"] for each in error["errors"]] == [refusal.code]
    refusal.check_message(error["errors"][0]["message"])
    refusal.check_attempts([request["at"] for request in seen["requests"]])
    after = requests_seen(gateway, code=str(refusal.code), status=str(refusal.status))
    assert after - before == refusal.attempts


def test_a_busy_gateway_answers_the_second_attempt(
    tmp_path: Path, small_gateway: Program, real_triton: TritonServer
) -> None:
    with occupied_until_someone_is_refused(small_gateway, real_triton.pid):
        (seen,) = sdk(tmp_path, small_gateway, RUN)
    check_scores(seen["result"])
    assert len(seen["requests"]) == 2


def test_a_used_up_rate_sends_retry_after(tmp_path: Path, spent_gateway: Program) -> None:
    (seen,) = sdk(tmp_path, spent_gateway, RUN, maxRetries=0)
    headers = seen["error"]["headers"]
    assert 0 < int(headers["retry-after"]) <= 60
    assert 0 < int(headers["retry-after-ms"]) <= 60_000

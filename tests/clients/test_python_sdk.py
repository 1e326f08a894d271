"""The newest ``cloudflare`` of PyPI, with nothing changed but its base URL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cloudflare
import httpx
import pytest

from embedded.server import TritonServer
from tests.support.clients.checks import MODEL, TEXT, UUID, check_scores
from tests.support.clients.refusing_gateways import (
    REFUSALS,
    Refusal,
    occupied_until_someone_is_refused,
    requests_seen,
)
from tests.support.servers import ACCOUNT, TOKEN, Program

WITHOUT_NODE = True


@dataclass
class Seen:
    """What the client has sent: when, in seconds, and where to."""

    times: list[float] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def note(self, request: httpx.Request) -> None:
        self.times.append(time.monotonic())
        self.paths.append(request.url.raw_path.decode())


@contextmanager
def sdk(gateway: Program, seen: Seen | None = None, **options: Any) -> Iterator[cloudflare.Cloudflare]:
    """The SDK's client; its own HTTP client notes the requests on the way."""
    http = cloudflare.DefaultHttpxClient(event_hooks={"request": [(seen or Seen()).note]})
    given = {"api_token": TOKEN, "base_url": f"{gateway.url}/client/v4", "http_client": http} | options
    with cloudflare.Cloudflare(**given) as client:
        yield client


def scores_of(result: Any) -> list[dict[str, Any]]:
    return [entry.to_dict() for entry in result]


def test_a_text_is_classified_with_the_model_name_percent_encoded(gateway: Program) -> None:
    seen = Seen()
    with sdk(gateway, seen) as client:
        check_scores(scores_of(client.ai.run(MODEL, account_id=ACCOUNT, text=TEXT)))
    assert seen.paths == [f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf%2Fhuggingface%2Fdistilbert-sst-2-int8"]


def test_the_client_is_configured_by_the_environment_alone(
    gateway: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", f"{gateway.url}/client/v4")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", TOKEN)
    with cloudflare.Cloudflare() as client:
        check_scores(scores_of(client.ai.run(MODEL, account_id=ACCOUNT, text=TEXT)))


def test_the_path_with_slashes_works_too(gateway: Program) -> None:
    with sdk(gateway) as client:
        answer: Any = client.post(
            f"/accounts/{ACCOUNT}/ai/run/{MODEL}", body={"text": TEXT}, cast_to=dict[str, Any]
        )
    check_scores(answer["result"])


def test_the_raw_response_has_the_headers(gateway: Program) -> None:
    with sdk(gateway) as client:
        raw = client.ai.with_raw_response.run(MODEL, account_id=ACCOUNT, text=TEXT)
        check_scores(scores_of(raw.parse()))
    assert UUID.fullmatch(raw.headers["cf-ai-req-id"])
    assert float(raw.headers["cf-ai-neurons"]) > 0
    assert raw.headers["content-type"] == "application/json"


def test_the_asynchronous_client_classifies_texts_side_by_side(gateway: Program) -> None:
    async def run() -> list[Any]:
        async with cloudflare.AsyncCloudflare(api_token=TOKEN, base_url=f"{gateway.url}/client/v4") as client:
            return await asyncio.gather(
                *(client.ai.run(MODEL, account_id=ACCOUNT, text=TEXT) for _ in range(8))
            )

    for result in asyncio.run(run()):
        check_scores(scores_of(result))


def test_several_texts_in_one_request(gateway: Program) -> None:
    requests = [{"text": TEXT, "external_reference": "good"}, {"text": ""}]
    with sdk(gateway) as client:
        # The SDK wants a text, and sends it beside the batch.
        answer: Any = client.ai.run(MODEL, account_id=ACCOUNT, text="", extra_body={"requests": requests})
    good, bad = answer["responses"]
    check_scores(good["result"])
    assert (good["external_reference"], bad["success"]) == ("good", False)
    assert bad["errors"][0]["code"] == 5006


def test_listing_models_ends_after_the_first_empty_page(gateway: Program) -> None:
    before = requests_seen(gateway)
    with sdk(gateway) as client:
        models: list[Any] = list(client.ai.models.list(account_id=ACCOUNT))
    assert [model["name"] for model in models] == [MODEL]
    assert requests_seen(gateway) - before == 2


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"task": "Text Classification", "per_page": 1}, 1),
        ({"search": "distilbert", "author": "huggingface", "source": 1}, 1),
        ({"search": "llama"}, 0),
    ],
)
def test_models_are_found_by_filters(gateway: Program, filters: dict[str, Any], found: int) -> None:
    before = requests_seen(gateway)
    with sdk(gateway) as client:
        assert len(list(client.ai.models.list(account_id=ACCOUNT, **filters))) == found
    # One request for each page with something on it, and one to see that the next is empty.
    assert requests_seen(gateway) - before == found + 1


def test_the_schema_describes_the_models_input(gateway: Program) -> None:
    with sdk(gateway) as client:
        schema: Any = client.ai.models.schema.get(account_id=ACCOUNT, model=MODEL)
    assert schema.input.to_dict()["required"] == ["text"]
    assert (schema.input.type, schema.output.type) == ("object", "array")
    for half in (schema.input, schema.output):
        assert half.description
        assert half.additional_properties is True


def test_tasks_and_authors_are_listed(gateway: Program) -> None:
    with sdk(gateway) as client:
        tasks: list[Any] = list(client.ai.tasks.list(account_id=ACCOUNT))
        authors: list[Any] = list(client.ai.authors.list(account_id=ACCOUNT))
    assert [task["name"] for task in tasks] == ["Text Classification"]
    assert [author["name"] for author in authors] == ["huggingface"]


def test_a_token_is_verified(gateway: Program) -> None:
    with sdk(gateway) as client:
        of_user = client.user.tokens.verify()
        of_account = client.accounts.tokens.verify(account_id=ACCOUNT)
    assert of_user is not None
    assert of_account is not None
    assert of_user.status == of_account.status == "active"
    assert of_user.id == of_account.id
    with sdk(gateway, api_token="wrong") as client, pytest.raises(cloudflare.AuthenticationError) as caught:
        client.user.tokens.verify()
    assert [error.code for error in caught.value.errors] == [1000]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_refusal_is_the_sdk_s_exception_with_the_code_of_the_api(
    refusal: Refusal, request: pytest.FixtureRequest
) -> None:
    gateway: Program = request.getfixturevalue(refusal.gateway)
    before = requests_seen(gateway, code=str(refusal.code), status=str(refusal.status))
    seen = Seen()
    with (
        sdk(gateway, seen, api_token=refusal.token, max_retries=refusal.retries) as client,
        pytest.raises(cloudflare.APIStatusError) as caught,
    ):
        client.ai.run(refusal.model, account_id=refusal.account, text=refusal.text)
    error = caught.value
    assert type(error).__name__ == (refusal.kind or "APIStatusError")
    assert error.status_code == refusal.status
    assert [each.code for each in error.errors] == [refusal.code]
    refusal.check_message(error.errors[0].message or "")
    refusal.check_attempts(seen.times)
    after = requests_seen(gateway, code=str(refusal.code), status=str(refusal.status))
    assert after - before == refusal.attempts


def test_a_busy_gateway_answers_the_second_attempt(small_gateway: Program, real_triton: TritonServer) -> None:
    seen = Seen()
    with (
        sdk(small_gateway, seen) as client,
        occupied_until_someone_is_refused(small_gateway, real_triton.pid),
    ):
        check_scores(scores_of(client.ai.run(MODEL, account_id=ACCOUNT, text=TEXT)))
    assert len(seen.times) == 2


def test_a_used_up_rate_sends_retry_after(spent_gateway: Program) -> None:
    with sdk(spent_gateway, max_retries=0) as client, pytest.raises(cloudflare.RateLimitError) as caught:
        client.ai.run(MODEL, account_id=ACCOUNT, text=TEXT)
    headers = caught.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 60
    assert 0 < int(headers["retry-after-ms"]) <= 60_000


def test_a_batch_is_queued_and_fetched(queueing_gateway: Program) -> None:
    def run(client: cloudflare.Cloudflare, **body: Any) -> Any:
        # The SDK sends a text in any case, and knows no type for these answers.
        answer = client.ai.with_raw_response.run(
            MODEL, account_id=ACCOUNT, text="", extra_query={"queueRequest": "true"}, extra_body=body
        )
        return answer.json()["result"]  # type: ignore[operator, index, unused-ignore]

    with sdk(queueing_gateway) as client:
        accepted = run(client, requests=[{"text": TEXT, "external_reference": "first"}, {"text": ""}])
        assert accepted["status"] == "queued"
        for _ in range(100):
            polled = run(client, request_id=accepted["request_id"])
            if "responses" in polled:
                break
            time.sleep(0.1)
    first, failed = polled["responses"]
    check_scores(first["result"])
    assert (first["external_reference"], failed["success"]) == ("first", False)

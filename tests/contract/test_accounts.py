"""Whose rate a request counts in when its path names no account."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import ACCOUNT, ANY_TOKEN, TOKEN, Answer, Running, running_gateway, settings_for

PER_MINUTE = 3


@pytest.fixture
async def limited(triton: FakeTriton) -> AsyncIterator[Running]:
    settings = settings_for(triton, requests_per_minute=PER_MINUTE, max_batch_texts=PER_MINUTE)
    async with running_gateway(settings) as running:
        yield running


async def bind(gateway: Running, token: str, **headers: str) -> Answer:
    """Classify as a Workers binding does."""
    body = json.dumps({"inputs": {"text": "A joy."}}).encode()
    sent = {"Authorization": f"Bearer {token}", "cf-consn-model-id": SST2, **headers}
    return await gateway.client.send("POST", "/run?version=3", body, sent)


async def test_a_binding_counts_in_the_rate_of_the_only_account_of_its_token(limited: Running) -> None:
    for _ in range(PER_MINUTE):
        assert (await limited.client.run({"text": "A joy."})).status == 200
    assert (await bind(limited, TOKEN)).status == 429
    assert (await bind(limited, ANY_TOKEN)).status == 200


async def test_a_token_of_any_account_may_name_one(limited: Running) -> None:
    for _ in range(PER_MINUTE):
        assert (await bind(limited, ANY_TOKEN, **{"cf-account-id": ACCOUNT})).status == 200
    assert (await limited.client.run({"text": "A joy."})).status == 429


async def test_a_token_may_name_only_its_own_account(limited: Running) -> None:
    assert (await bind(limited, TOKEN, **{"cf-account-id": "0" * 32})).status == 403
    assert (await bind(limited, TOKEN, **{"cf-account-id": ACCOUNT})).status == 200

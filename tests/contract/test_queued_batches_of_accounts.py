"""Who may fetch a batch that was queued by a request that names no account."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import Answer, Running, running_gateway, settings_for, until
from tests.support.queued_batches import batch

FIRST, SECOND, THIRD, FOURTH = ("1" * 32, "2" * 32, "3" * 32, "4" * 32)
OF_TWO, OF_TWO_OTHERS, OF_ONE = "token-of-two-accounts", "token-of-two-others", "token-of-one-account"
OF_ANY, OF_ANY_TOO = "token-of-any-account", "another-of-any-account"
_TOKENS = (
    (FIRST, OF_TWO),
    (SECOND, OF_TWO),
    (THIRD, OF_TWO_OTHERS),
    (FOURTH, OF_TWO_OTHERS),
    (FIRST, OF_ONE),
    ("*", OF_ANY),
    ("*", OF_ANY_TOO),
)


@pytest.fixture
async def shared(triton: FakeTriton, tmp_path: Path) -> AsyncIterator[Running]:
    tokens = ",".join(f"{account}:{token}" for account, token in _TOKENS)
    async with running_gateway(settings_for(triton, batch_folder=tmp_path, api_tokens=tokens)) as running:
        yield running


async def bind(gateway: Running, token: str, inputs: object, **headers: str) -> Answer:
    """Run as a Workers binding does."""
    body = json.dumps({"inputs": inputs, "options": {"queueRequest": True}}).encode()
    sent = {"Authorization": f"Bearer {token}", "cf-consn-model-id": SST2, **headers}
    return await gateway.client.send("POST", "/run?version=3", body, sent)


async def submit(gateway: Running, token: str, **headers: str) -> dict[str, str]:
    """Submit a batch and wait until it is finished; return what polls for it."""
    accepted = await bind(gateway, token, batch("a"), **headers)
    poll = {"request_id": accepted.json["request_id"]}

    async def is_finished() -> bool:
        return "responses" in (await bind(gateway, token, poll, **headers)).json

    await until(is_finished)
    return poll


@pytest.mark.parametrize(
    ("owner", "others"),
    [(OF_TWO, (OF_TWO_OTHERS, OF_ONE, OF_ANY)), (OF_ANY, (OF_ANY_TOO, OF_TWO, OF_ONE))],
)
async def test_it_belongs_to_the_token_where_that_is_for_several_accounts(
    shared: Running, owner: str, others: tuple[str, ...]
) -> None:
    poll = await submit(shared, owner)
    for other in others:
        refused = await bind(shared, other, poll)
        assert (refused.status, refused.json["internalCode"]) == (400, 5006)
        assert "is not known" in refused.json["description"]
    unnamed = await bind(shared, owner, poll, **{"cf-account-id": FIRST})
    assert unnamed.json["internalCode"] == 5006


async def test_it_belongs_to_the_account_where_there_is_one(shared: Running) -> None:
    named = await submit(shared, OF_TWO, **{"cf-account-id": FIRST})
    only = await submit(shared, OF_ONE)
    for poll in (named, only):
        assert "responses" in (await bind(shared, OF_ONE, poll)).json
        assert "responses" in (await bind(shared, OF_ANY, poll, **{"cf-account-id": FIRST})).json
        assert (await bind(shared, OF_TWO, poll)).json["internalCode"] == 5006


async def test_the_store_never_holds_a_token(shared: Running, tmp_path: Path) -> None:
    await submit(shared, OF_TWO)
    files = [path for path in tmp_path.iterdir() if path.name.startswith("batches.sqlite3")]
    assert files
    for path in files:
        assert OF_TWO.encode() not in path.read_bytes()

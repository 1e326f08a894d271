"""Bodies that are larger than a request may be, unless it queues a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_errors import check_ai
from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import Answer, Client, running_gateway, settings_for
from tests.support.queued_batches import QUEUED, batch

LIMIT = "Request is too large: the limit is 2000 bytes"
FILLED = "x" * 3000


async def through_binding(client: Client, body: bytes, model: str = SST2) -> Answer:
    headers = client.headers | {"cf-consn-model-id": model, "cf-consn-sdk-version": "2.0.0"}
    return await client.send("POST", "/run?version=3", body, headers)


@pytest.fixture
def settings(triton: FakeTriton, tmp_path: Path) -> Any:
    return settings_for(
        triton, max_body_bytes=2000, max_queued_body_bytes=20_000_000, batch_folder=tmp_path / "batches"
    )


async def test_what_a_binding_sends_is_not_parsed_where_it_is_too_large_and_asks_for_no_batch(
    settings: Any,
) -> None:
    async with running_gateway(settings) as running:
        client = running.client
        answer = await through_binding(client, b"no json " + FILLED.encode())
        assert (answer.status, json.loads(answer.body)["internalCode"]) == (413, 3006)
        asking = json.dumps({"inputs": batch(FILLED), "options": {"queueRequest": True}})
        assert (await through_binding(client, asking.encode())).status == 200
        escaped = asking.replace("queueRequest", "queue\\u0052equest")
        assert (await through_binding(client, escaped.encode())).status == 200


async def test_a_large_body_of_many_values_is_refused_in_a_sentence(settings: Any) -> None:
    body = b'{"requests":[' + b"[]," * 3_000_000 + b"[]]}"
    async with running_gateway(settings) as running:
        refused = await running.client.run(body, query=QUEUED)
        check_ai(
            refused, 400, 3003, "Request is missing headers or body: the body has more than 250000 values"
        )

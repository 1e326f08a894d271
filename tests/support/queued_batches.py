"""Submitting batches and polling until they have a result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.settings import Settings
from tests.support.harness import RUN, UUID, Answer, Client

QUEUED = "?queueRequest=true"
UNKNOWN = "Bad input: Error: '/request_id' is not known, or its result has expired"
NO_ID = "d9e09afe-fe49-4051-bc1d-8901f858ff52"
ENTRIES = '[{"label":"NEGATIVE","score":0.5},{"label":"POSITIVE","score":0.5}]'
Configure = Callable[..., Settings]
"""Makes settings of gateways that share a store."""


async def submit(client: Client, payload: object, *, path: str = RUN, query: str = QUEUED) -> str:
    """Submit over REST; return the request id."""
    answer = await client.run(payload, path=path, query=query)
    assert answer.status == 200, answer.body
    request_id = answer.json["result"]["request_id"]
    assert UUID.fullmatch(request_id)
    return str(request_id)


async def fetch(client: Client, request_id: str, *, query: str = QUEUED, timeout_s: float = 20) -> Answer:
    """Poll until there is a result, or an error."""
    end = asyncio.get_running_loop().time() + timeout_s
    while asyncio.get_running_loop().time() < end:
        answer = await client.run({"request_id": request_id}, query=query)
        if answer.status != 200 or "status" not in answer.json["result"]:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"no result: {answer.body!r}")


def batch(*texts: object) -> dict[str, Any]:
    """Return the body of a batch."""
    return {"requests": [{"text": text} for text in texts]}

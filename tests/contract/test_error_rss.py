"""The resident memory of a gateway whose requests fail, over many requests of the largest size.

``FAILED_REQUESTS=1000 pytest -s`` prints the table for so many requests of each form and each way to fail.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest

from tests.support.failing import AT_TRITON, BEFORE_TRITON, FORMS, Failure, failing, slowly
from tests.support.fake_triton import FakeTriton
from tests.support.gateway_process import gateway_process, triton_in_a_thread
from tests.support.harness import Client

REQUESTS = int(os.environ.get("FAILED_REQUESTS", "4"))
"""Of each form and each way to fail."""
TEXT = "word " * 200_000
MOST_GROWTH_MB = 40
"""In each row: room for what one request takes while it is under way, and for fragments."""
SETTINGS = {
    "GATEWAY_MAX_BODY_BYTES": "1100000",
    "GATEWAY_REQUEST_TIMEOUT_S": "1",
    "GATEWAY_MAX_QUEUE_S": "0.9",
    "GATEWAY_CALL_SLOTS": "20",
    "GATEWAY_ACCESS_LOG_SHARE": "0",
}
LONGER = TEXT * 2
ROWS: dict[str, tuple[Failure, str]] = {
    **{name: (failure, TEXT) for name, failure in AT_TRITON.items()},
    **{
        name: (BEFORE_TRITON[name], TEXT)
        for name in ("400, no text", "400, no JSON", "408, body", "hang-up, body")
    },
    "408, inference": (Failure(408, fault=lambda: slowly(1.2)), TEXT),
    "413, announced": (BEFORE_TRITON["413, announced"], LONGER),
    "413, chunked": (BEFORE_TRITON["413, chunked"], LONGER),
}
AT_ONCE = {"408, inference": 8, "408, body": 8, "hang-up": 1}


class _ForgetfulTriton(FakeTriton):
    """Keeps no requests: the test's own memory has bounds, too."""

    async def ModelInfer(self, request: object, context: object) -> object:
        self.requests.clear()
        return await super().ModelInfer(request, context)


def resident_mb(port: int) -> float:
    (gateway,) = (
        child
        for child in psutil.Process().children()
        if any(found.laddr.port == port for found in child.net_connections() if found.status == "LISTEN")
    )
    return float(gateway.memory_info().rss) / 1e6


async def failed(client: Client, triton: FakeTriton, name: str, count: int) -> None:
    failure, text = ROWS[name]
    at_once = AT_ONCE.get(name, 1)
    async with failing(failure, client, triton):
        for form in FORMS.values():
            for begin in range(0, count, at_once):
                sent = (failure.send(client, form, text) for _ in range(min(at_once, count - begin)))
                assert set(await asyncio.gather(*sent)) <= {
                    failure.status,
                    408,
                    429,
                }  # on a machine that stalls


@pytest.mark.timeout(7200)
def test_memory_is_flat_however_many_requests_fail(tmp_path: Path) -> None:
    grown = {}
    with (
        triton_in_a_thread(_ForgetfulTriton()) as triton,
        gateway_process(tmp_path / "log", GATEWAY_TRITON_URL=triton.url, **SETTINGS) as port,
    ):
        client = Client(port)
        for name in ROWS:
            # What one of them takes is no leak.
            asyncio.run(failed(client, triton, name, AT_ONCE.get(name, 1)))
            before, began = resident_mb(port), time.monotonic()
            asyncio.run(failed(client, triton, name, REQUESTS))
            grown[name] = resident_mb(port) - before
            took_s = time.monotonic() - began
            after = before + grown[name]
            print(
                f"{name:22} {3 * REQUESTS} requests, {took_s:.0f} s: {before:.0f} -> {after:.0f} MB",
                flush=True,
            )
    assert {name: mb for name, mb in grown.items() if mb > MOST_GROWTH_MB} == {}

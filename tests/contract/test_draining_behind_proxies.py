"""One of two gateways drains under load, behind the proxies that people put before them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import ACCOUNT, TOKEN, running_gateway, settings_for
from tests.support.proxies import running_proxy

DRAINS = 4
CALLERS = 30
BODY = b'{"text": "a"}'
REQUEST = (
    f"POST /client/v4/accounts/{ACCOUNT}/ai/run/{SST2} HTTP/1.1\r\nHost: gateway\r\n"
    f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY


async def keep_asking(port: int, number: int, stop: asyncio.Event, seen: Counter[str]) -> None:
    """Send POST requests, with short pauses, over a connection that is kept while the proxy keeps it."""
    pauses = random.Random(number)
    writer: asyncio.StreamWriter | None = None
    while not stop.is_set():
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(REQUEST)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).lower()
            length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            seen[head[9:12].decode()] += 1
            closes = b"\r\nconnection: close" in head
        except (OSError, EOFError) as error:
            seen[type(error).__name__] += 1
            closes = True
        if closes:
            writer.close()
            writer = None
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), pauses.uniform(0, 0.05))
    if writer is not None:
        writer.close()


@pytest.mark.parametrize("delay_s", [0, 0.3])
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
async def test_no_caller_behind_a_proxy_gets_an_error(
    triton: FakeTriton, tmp_path: Path, proxy: str, delay_s: float
) -> None:
    seen: Counter[str] = Counter()
    settings = settings_for(triton, shutdown_delay_s=delay_s, drain_keep_alive_s=0.5)
    for number in range(DRAINS):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with running_gateway(settings) as leaving, running_gateway(settings) as staying:
            with running_proxy(proxy, [leaving.client.port, staying.client.port], folder) as port:
                stop = asyncio.Event()
                callers = [
                    asyncio.create_task(keep_asking(port, number * CALLERS + caller, stop, seen))
                    for caller in range(CALLERS)
                ]
                await asyncio.sleep(0.3)
                leaving.stop.set()
                await asyncio.wait_for(leaving.task, 10)
                await asyncio.sleep(0.1)
                stop.set()
                await asyncio.gather(*callers)
    assert set(seen) == {"200"}, seen
    assert seen["200"] > DRAINS * CALLERS

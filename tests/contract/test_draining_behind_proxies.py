"""One of two gateways drains under load, behind the proxies that people put before them."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import pytest

from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import ACCOUNT, TOKEN, running_gateway, settings_for
from tests.support.proxies import running_example, running_proxy

DRAINS = 4
CALLERS = 30
BODY = b'{"text": "a"}'
REQUEST = (
    f"POST /client/v4/accounts/{ACCOUNT}/ai/run/{SST2} HTTP/1.1\r\nHost: localhost\r\n"
    f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY


@contextmanager
def proxy_before(name: str, gateways: list[int], folder: Path) -> Iterator[tuple[int, ssl.SSLContext | None]]:
    """Run a proxy; yields its port, and its TLS if it has any."""
    kind, _, is_example = name.partition(" ")
    if is_example:
        with running_example(kind, gateways, folder) as found:
            yield found
    else:
        with running_proxy(kind, gateways, folder) as port:
            yield port, None


async def keep_asking(
    port: int, tls: ssl.SSLContext | None, number: int, stop: asyncio.Event, seen: Counter[str]
) -> None:
    """Send POST requests, with short pauses, over a connection that is kept while the proxy keeps it."""
    name = "localhost" if tls is not None else None
    pauses = random.Random(number)
    writer: asyncio.StreamWriter | None = None
    while not stop.is_set():
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
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


def refused_by_nginx(folder: Path) -> list[str]:
    """What nginx logged, without the connections that it made elsewhere after a refusal."""
    lines = [line for log in folder.rglob("log") for line in log.read_text().splitlines()]
    return [line for line in lines if "Connection refused" not in line]


@pytest.mark.parametrize(
    ("proxy", "delay_s"),
    [
        *product(("nginx", "haproxy", "nginx example"), (0, 0.3)),
        # Caddy repeats no POST, so it has to notice first, by a health check each second.
        ("caddy example", 2),
    ],
)
async def test_no_caller_behind_a_proxy_gets_an_error(
    triton: FakeTriton, tmp_path: Path, proxy: str, delay_s: float
) -> None:
    seen: Counter[str] = Counter()
    # The default: while the tests of two processes share the cores, half a second is a pause that happens.
    settings = settings_for(triton, shutdown_delay_s=delay_s, drain_keep_alive_s=1)
    for number in range(DRAINS):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with running_gateway(settings) as leaving, running_gateway(settings) as staying:
            with proxy_before(proxy, [leaving.client.port, staying.client.port], folder) as (port, tls):
                stop = asyncio.Event()
                callers = [
                    asyncio.create_task(keep_asking(port, tls, number * CALLERS + caller, stop, seen))
                    for caller in range(CALLERS)
                ]
                await asyncio.sleep(0.3)
                leaving.stop.set()
                await asyncio.wait_for(leaving.task, 10)
                await asyncio.sleep(0.1)
                stop.set()
                await asyncio.gather(*callers)
    assert seen["200"] > DRAINS * CALLERS
    # nginx may write to a connection that was idle all the time and whose FIN it has not read, and repeats no
    # POST: one 502 was seen in many runs (docs/operations.md). HAProxy and Caddy have no such allowance.
    lost = seen.total() - seen["200"]
    assert lost <= ("nginx" in proxy), (seen, refused_by_nginx(tmp_path))

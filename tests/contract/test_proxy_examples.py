"""The example files for nginx and Caddy, run as they are before a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_triton import FakeTriton
from tests.support.harness import RUN, TOKEN, Answer, Client, access_lines, running_gateway, settings_for
from tests.support.proxies import running_example

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
GOOD = {"text": "a"}
KIB = 1024


@dataclass
class Proxied:
    """A gateway, and a client of the proxy in front of it."""

    gateway: Client
    client: Client
    folder: Path


@pytest.fixture(params=["nginx", "caddy"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def proxied(triton: FakeTriton, tmp_path: Path, name: str) -> AsyncIterator[Proxied]:
    settings = settings_for(
        triton,
        request_timeout_s=1.0,
        max_body_bytes=64 * KIB,
        log_client_address=True,
        trusted_proxies="127.0.0.1",
    )
    async with running_gateway(settings) as running:
        with running_example(name, [running.client.port], tmp_path) as (port, tls):
            yield Proxied(
                running.client, Client(port, {**AUTHORIZED, "Host": "localhost"}, tls=tls), tmp_path
            )


async def test_a_request_over_tls_is_answered_as_without_a_proxy(proxied: Proxied) -> None:
    direct, answer = await proxied.gateway.run(GOOD), await proxied.client.run(GOOD)
    assert answer.status == 200
    assert answer.json["result"] == direct.json["result"]
    for header in ("content-type", "cache-control", "x-content-type-options"):
        assert answer.header(header) == direct.header(header)
    assert answer.header("cf-ray")
    assert answer.header("server-timing")
    unknown = await proxied.client.get("/client/v4/no-such-route")
    assert (unknown.status, unknown.error["code"]) == (400, 7000)


async def test_connections_to_the_gateway_are_kept(proxied: Proxied) -> None:
    for _ in range(20):
        assert (await proxied.client.run(GOOD)).status == 200
    # The proxy's one connection, the one that asks, and for a moment that of Caddy's health check.
    assert 2 <= await proxied.gateway.metric("tritonflare_connections") <= 3


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kib", [65, 1024, 16 * 1024])
async def test_a_body_above_the_limit_gets_the_gateways_413(
    proxied: Proxied, kib: int, chunked: bool
) -> None:
    body = json.dumps({"text": "a" * kib * KIB}).encode()
    headers = dict(proxied.client.headers)
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    answer = await proxied.client.send("POST", RUN, body, headers)
    assert (answer.status, answer.error["code"]) == (413, 3006)
    assert answer.header("content-type") == "application/json"


@pytest.mark.parametrize("name", ["nginx"], indirect=True)  # Caddy never buffers on disk
async def test_nginx_writes_no_body_to_disk(proxied: Proxied) -> None:
    answer = await proxied.client.run({"text": "a " * 30 * KIB})
    assert answer.status == 200
    assert "buffered to a temporary file" not in (proxied.folder / "log").read_text()


async def test_a_body_that_does_not_arrive_gets_the_gateways_408(proxied: Proxied) -> None:
    headers = {**proxied.client.headers, "Content-Length": "100"}
    answer = await proxied.client.send("POST", RUN, b'{"text"', headers)
    assert (answer.status, answer.error["code"]) == (408, 3007)


@pytest.mark.parametrize("forged", [None, "203.0.113.9", "203.0.113.9, 127.0.0.1"])
async def test_the_logged_address_is_that_of_the_proxys_client(
    proxied: Proxied, capsys: pytest.CaptureFixture[str], forged: str | None
) -> None:
    proxied.client.source = "127.0.0.2"
    headers = proxied.client.headers | ({"X-Forwarded-For": forged} if forged else {})
    assert (await proxied.client.send("POST", RUN, json.dumps(GOOD).encode(), headers)).status == 200
    (line,) = await access_lines(capsys)
    assert line.endswith(" client=127.0.0.2")


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics/",
        "/metrics?a",
        "//metrics",
        "/./metrics",
        "/a/../metrics",
        "/%6Detrics",
        "/metrics#a",
    ],
)
async def test_metrics_are_not_reachable_from_outside(proxied: Proxied, path: str) -> None:
    answer = await proxied.client.get(path)
    assert answer.status in (400, 404)
    assert b"tritonflare_" not in answer.body


async def test_metrics_are_not_reachable_as_a_wrapped_binding_call(proxied: Proxied) -> None:
    headers = proxied.client.headers | {"MF-URL": "https://workers-binding.ai/metrics"}
    answer = await proxied.client.send("GET", "/", None, headers)
    assert answer.status == 400
    assert b"tritonflare_" not in answer.body


async def received_by_the_gateway(name: str, folder: Path, sent: dict[str, str]) -> list[tuple[str, str]]:
    """Return the headers that reach the address of the gateway."""
    heads: list[str] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if not head.startswith("GET /readyz "):  # Caddy's health check
            heads.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        with running_example(name, [server.sockets[0].getsockname()[1]], folder) as (port, tls):
            answer: Answer = await Client(port, sent, tls=tls, source="127.0.0.2").get("/client/v4/x?a=%2F")
            assert answer.status == 200
    request_line, *lines = heads[0].rstrip().split("\r\n")
    assert request_line == "GET /client/v4/x?a=%2F HTTP/1.1"
    return [(key.lower(), value) for key, value in (line.split(": ", 1) for line in lines if ": " in line)]


async def test_headers_reach_the_gateway_and_forged_addresses_do_not(tmp_path: Path, name: str) -> None:
    kept: dict[str, Any] = {
        "Host": "localhost",
        "authorization": f"Bearer {TOKEN}",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-request-id": "7",
        "cf-consn-model-id": "@cf/a/b",
    }
    received = await received_by_the_gateway(name, tmp_path, kept | {"X-Forwarded-For": "203.0.113.9"})
    for header, value in kept.items():
        assert [found for key, found in received if key == header.lower()] == [value]
    assert [value for key, value in received if key == "x-forwarded-for"] == ["127.0.0.2"]
    assert [value for key, value in received if key == "x-forwarded-proto"] == ["https"]
    assert [value for key, value in received if key == "connection" and value.lower() == "close"] == []

"""Connections as callers and proxies really use them: trailers, half-closes, early answers, slow readers."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.server.message import JSON
from tests.contract.test_protocol import BODY, answer, post
from tests.support.fake_triton import SST2, FakeTriton, hold
from tests.support.harness import RUN, TOKEN, Client, access_lines, running_gateway, settings_for, until

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = post().replace(b"Content-Length: 16", b"Transfer-Encoding: chunked")[: -len(BODY)]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def status(reader: asyncio.StreamReader) -> int:
    return int((await answer(reader))[0].split()[1])


async def at_end(reader: asyncio.StreamReader) -> bool:
    return await asyncio.wait_for(reader.read(), 5) == b""


@pytest.mark.parametrize(
    "trailer",
    [
        b"Connection: close",
        b"Connection: upgrade\r\nUpgrade: h2c",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5",
        b"Host: other",
        b"X-A: b",
    ],
)
async def test_a_trailer_changes_nothing_for_what_comes_behind(client: Client, trailer: bytes) -> None:
    async with connected(client) as (reader, writer):
        for _ in range(3):
            writer.write(CHUNKED + b"10\r\n" + BODY + b"\r\n0\r\n" + trailer + b"\r\n\r\n")
            head, _ = await answer(reader)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" not in head
        writer.write(post(b"Connection: close\r\n"))
        head, _ = await answer(reader)
        assert b"connection: close" in head


@pytest.mark.parametrize("pause_s", [0, 0.02])
@pytest.mark.parametrize("text", ["Upgrade: worth it", "upgrade:", "a\r\nUpgrade: h2c\r\n\r\n"])
async def test_content_that_looks_like_an_upgrade_is_classified_as_it_came(
    client: Client, triton: FakeTriton, text: str, pause_s: float
) -> None:
    body = json.dumps({"text": text}).encode()
    at = body.lower().index(b"upgrade:")
    pieces = [
        CHUNKED,
        b"%x\r\n" % at,
        body[:at],
        b"\r\n%x\r\n" % (len(body) - at),
        body[at:],
        b"\r\n0\r\n\r\n",
    ]
    async with connected(client) as (reader, writer):
        for piece in pieces if pause_s else [b"".join(pieces)]:
            writer.write(piece)
            await asyncio.sleep(pause_s)
        assert await status(reader) == 200
    assert triton.texts == [text.encode()]


@pytest.mark.parametrize("count", [1, 3])
async def test_who_ends_his_side_behind_a_request_is_answered(client: Client, count: int) -> None:
    async with connected(client) as (reader, writer):
        writer.write(post() * count)
        writer.write_eof()
        for _ in range(count):
            assert await status(reader) == 200
        assert await at_end(reader)


async def test_who_ended_his_side_and_still_waits_is_answered_when_it_takes_long(
    client: Client, triton: FakeTriton
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with connected(client) as (reader, writer):
        writer.write(post())
        writer.write_eof()
        # Had he gone, this would come back as a reset.
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await asyncio.sleep(0.3)
        release.set()
        assert await status(reader) == 200
        assert await at_end(reader)


async def test_a_client_of_http_1_0_that_half_closed_gets_nothing_but_the_answer(
    client: Client, triton: FakeTriton
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with connected(client) as (reader, writer):
        writer.write(post(b"Expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
        writer.write_eof()
        await asyncio.sleep(0.4)
        release.set()
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_text_of_a_disconnected_client_is_dropped_while_it_waits(
    triton: FakeTriton, how: str
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(settings_for(triton, call_slots=1, max_call_texts=1)) as running:
        first = asyncio.create_task(running.client.run({"text": "first"}))

        async def inferring() -> bool:
            return triton.texts == [b"first"]

        await until(inferring)
        async with connected(running.client) as (_, writer):
            writer.write(post())

            async def waits() -> bool:
                return await running.client.metric("tritonflare_requests_in_flight") == 2

            await until(waits)
            if how == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        async def dropped() -> bool:
            return await running.client.metric("tritonflare_requests_in_flight") == 1

        await until(dropped)
        release.set()
        assert (await first).status == 200
        assert triton.texts == [b"first"]


async def test_half_a_body_whose_sender_ends_his_side_is_a_line_in_the_log(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    async with connected(client) as (reader, writer):
        writer.write(post()[:-3])
        await asyncio.sleep(0.05)
        writer.write_eof()
        assert await at_end(reader)
    (line,) = await access_lines(capsys)
    assert "status=499 code=499" in line


def early(code: int, keep: bool, size: int) -> bytes:
    token = TOKEN if code == 413 else "nobody-s"
    head = f"POST {RUN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {size}\r\n"
    return head.encode() + (b"\r\n" if keep else b"Connection: close\r\n\r\n")


@pytest.mark.parametrize("keep", [True, False], ids=["keep-alive", "close"])
@pytest.mark.parametrize("code", [401, 413])
async def test_an_early_answer_reaches_a_client_that_keeps_sending(
    client: Client, code: int, keep: bool
) -> None:
    size = 4_000_000
    async with connected(client) as (reader, writer):
        writer.write(early(code, keep, size))
        for _ in range(40):  # for longer than the gateway once waited
            writer.write(b"x" * (size // 40))
            await writer.drain()
            await asyncio.sleep(0.04)
        assert await status(reader) == code
        if keep:
            writer.write(post())
            assert await status(reader) == 200
        else:
            assert await at_end(reader)


async def test_who_never_stops_sending_behind_the_last_answer_is_cut_off(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.connection.lingering_close.LINGER_BYTES", 1_000_000)
    async with connected(client) as (reader, writer):
        writer.write(early(401, False, 10**12))
        assert await status(reader) == 401
        sent = 0
        with suppress(ConnectionError):
            while sent < 100_000_000:
                writer.write(b"x" * 100_000)
                await writer.drain()
                sent += 100_000
        assert sent < 50_000_000  # what is on the way counts, too


async def test_http_1_0_gets_no_100_continue(client: Client) -> None:
    sent = post(b"Expect: 100-continue\r\n")
    async with connected(client) as (reader, writer):
        writer.write(sent.replace(b"HTTP/1.1", b"HTTP/1.0")[: -len(BODY)])
        await asyncio.sleep(0.1)
        writer.write(BODY)
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 200 ")
    async with connected(client) as (reader, writer):
        writer.write(sent[: -len(BODY)])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert await status(reader) == 200


async def test_the_absolute_form_without_a_path_is_the_root(client: Client) -> None:
    async with connected(client) as (reader, writer):
        writer.write(b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _ = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert JSON not in head  # the page


async def test_what_is_sent_behind_a_request_is_not_looked_at_before_its_answer(
    client: Client, triton: FakeTriton
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with connected(client) as (reader, writer):
        writer.write(post() + LIVEZ * 1000)
        await asyncio.sleep(0.1)
        good = f'tritonflare_requests_total{{code="0",model="{SST2}",status="200"}}'
        assert await client.metric(good) == 0
        release.set()
        for _ in range(1001):
            assert await status(reader) == 200

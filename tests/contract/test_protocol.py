"""HTTP/1.1 as clients really send it, byte for byte, on one connection."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress

import psutil
import pytest

from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import RUN, TOKEN, Client, access_lines, running_gateway, settings_for, until

BODY = b'{"text": "good"}'


def post(extra: bytes = b"") -> bytes:
    return (
        f"POST {RUN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
        + extra
        + b"Content-Length: %d\r\n\r\n" % len(BODY)
        + BODY
    )


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = next(
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    return head, await reader.readexactly(length)


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
async def test_an_offered_upgrade_is_ignored_and_the_connection_lives_on(client: Client, name: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    offer = b"Connection: Upgrade, HTTP2-Settings\r\n" + name + b": h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    for extra in (offer, b"", offer):
        writer.write(post(extra))
        head, body = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 "), body
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"FROB / HTTP/1.1\r\nHost: x\r\n\r\n"],
)
async def test_what_is_no_http_gets_the_envelope_and_the_end_of_the_connection(
    client: Client, garbage: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(garbage)
    head, body = await answer(reader)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json\r\n" in head
    assert re.search(rb"\r\ndate: .*\r\n(?s:.*)\r\ncf-ray: [0-9a-f]{16}-TFL\r\n", head)
    assert json.loads(body) == {
        "result": None,
        "success": False,
        "errors": [{"code": 6003, "message": "Invalid request headers"}],
        "messages": [],
    }
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await writer.wait_closed()


CHUNKED = post().replace(b"Content-Length: 16", b"Transfer-Encoding: chunked")[: -len(BODY)]


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (post() * 50, [200] * 50),
        (post() * 3 + b"\x00garbage\r\n\r\n", [200, 200, 200, 400]),
        (post() + CHUNKED + b"zz\r\n", [200, 400]),
        (CHUNKED + b"10\r\n" + BODY + b"\r\nzz\r\n" + post(), [400]),
        (CHUNKED.replace(b"Bearer", b"Basic") + b"zz\r\n", [400]),
        (post() + post(b"Connection: close\r\n") + post(), [200, 200]),
    ],
)
async def test_answers_come_in_the_order_of_the_requests_also_before_a_refusal(
    client: Client, sent: bytes, statuses: list[int]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(sent)
    for status in statuses:
        head, _ = await answer(reader)
        assert int(head.split()[1]) == status
    if sent != post() * 50:
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("sent", [b"", b"\r\n", post(), post() + b"\r\n"])
async def test_a_connection_on_which_nothing_comes_is_closed(triton: FakeTriton, sent: bytes) -> None:
    async with running_gateway(settings_for(triton, keep_alive_timeout_s=1)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
        writer.write(sent)
        if len(sent) > 2:
            await answer(reader)
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()
        await writer.wait_closed()


async def test_what_is_refused_before_it_is_a_request_is_logged_and_counted_like_one(
    client: Client, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(post() + b"private\r\n\r\n")
    await answer(reader)  # the good request in front of it
    head, _ = await answer(reader)
    writer.close()
    found = re.search(rb"cf-ray: (\S+)", head)
    assert found
    lines = await access_lines(capsys)
    assert lines[1:] == [f"- none status=400 code=6003 ms=0.0 ray={found[1].decode()} id=-"]
    assert "private" not in caplog.text + "".join(lines)
    assert await client.metric('tritonflare_requests_total{code="6003",model="none",status="400"}') == 1


async def test_a_head_that_does_not_end_is_3007(
    triton: FakeTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_gateway(settings_for(triton, transfer_timeout_s=1)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
        for letter in b"POST /":
            writer.write(bytes([letter]))
            await asyncio.sleep(0.08)
        head, body = await answer(reader)
        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(body)["errors"][0]["code"] == 3007
        ids = [re.search(name + rb": (\S+)", head) for name in (b"cf-ray", b"cf-ai-req-id")]
        ray, ai_request_id = (found[1].decode() for found in ids if found)
        assert await access_lines(capsys) == [
            f"- none status=408 code=3007 ms=0.0 ray={ray} id={ai_request_id}"
        ]
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await writer.wait_closed()


async def test_a_head_behind_a_large_body_is_not_taken_for_a_large_head(client: Client) -> None:
    large = post().replace(b"Content-Length: 16", b"Content-Length: 200000")[: -len(BODY)]
    sent = large + BODY.ljust(200_000) + post()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(sent[:-40])
    await asyncio.sleep(0.1)
    writer.write(sent[-40:])
    for _ in range(2):
        head, _ = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


async def test_what_is_still_to_come_of_a_body_that_was_refused_is_not_kept(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(post().replace(b"Content-Length: 16", b"Content-Length: 50000000")[: -len(BODY)])
    first, body = await answer(reader)
    assert (first.split()[1], json.loads(body)["errors"][0]["code"]) == (b"413", 3006)
    before = psutil.Process().memory_info().rss
    for _ in range(48):
        writer.write(b"x" * 1_000_000)
        await writer.drain()
        await asyncio.sleep(0.03)  # longer in all than the gateway waits for the end of the body
    assert psutil.Process().memory_info().rss - before < 16_000_000
    writer.close()


async def test_who_sends_many_requests_and_reads_no_answer_is_not_read_any_further(
    triton: FakeTriton,
) -> None:
    async with running_gateway(settings_for(triton, transfer_timeout_s=1)) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.client.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        with suppress(ConnectionError, asyncio.TimeoutError):
            while sent < 200_000:
                writer.write(post() * 100)
                sent += 100
                await asyncio.wait_for(writer.drain(), 3)
        assert sent < 200_000
        good = f'tritonflare_requests_total{{code="0",model="{SST2}",status="200"}}'
        assert await running.client.metric(good) < sent
        assert (await running.client.run({"text": "others are served"})).status == 200
        writer.transport.abort()


async def test_a_trailer_without_end_is_refused_before_it_fills_the_memory(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(CHUNKED + b"10\r\n" + BODY + b"\r\n0\r\nx: ")
    before = psutil.Process().memory_info().rss
    with suppress(ConnectionError):
        for _ in range(20):
            writer.write(b"a" * 1_000_000)
            await asyncio.wait_for(writer.drain(), 5)
    assert psutil.Process().memory_info().rss - before < 40_000_000  # this process is the sender too
    head, body = await answer(reader)
    assert (head.split()[1], json.loads(body)["errors"][0]["code"]) == (b"400", 6003)
    writer.close()


async def test_what_breaks_a_body_that_was_refused_gets_no_second_answer(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(CHUNKED.replace(TOKEN.encode(), b"nobody-s"))
    head, _ = await answer(reader)
    assert head.startswith(b"HTTP/1.1 401 ")
    await asyncio.sleep(1.2)  # the gateway no longer waits for the end of the body
    writer.write(b"zz\r\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert not caplog.records
    writer.close()


async def test_who_takes_no_answer_is_cut_off_after_a_while(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, transfer_timeout_s=1)) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.client.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: gateway\r\n\r\n" * 100)
        before = len(psutil.Process().net_connections("tcp"))

        async def cut_off() -> bool:
            return len(psutil.Process().net_connections("tcp")) < before

        await until(cut_off)
        writer.transport.abort()

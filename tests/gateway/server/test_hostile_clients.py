"""Clients that break off, send too much, or do not read: no response is lost, and others are served."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence

import pytest

from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.message import Header, HttpRequest, Response
from tests.support.scripted_peer import KEEP_ALIVE_S, Held, Recorder, ScriptedPeer
from tests.support.virtual_time import in_virtual_time, settle

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("tls", [False, True])
@in_virtual_time
async def test_input_that_is_unread_at_the_last_response_does_not_reset_the_connection(tls: bool) -> None:
    app = Held()
    peer = ScriptedPeer(app, tls=tls)
    peer.send(LAST)
    await settle()
    app.release.set()
    peer.arrive(b"more")
    await settle()
    assert peer.responses == [b"200 held"]
    peer.half_close()
    assert peer.closed
    assert not peer.was_reset


@in_virtual_time
async def test_a_pipelined_head_that_is_incomplete_when_the_server_drains_is_answered() -> None:
    app = Held()
    peer = ScriptedPeer(app)
    peer.send(GET + GET[:10])
    await settle()
    assert peer.connection.finish()
    app.release.set()
    await settle()
    assert b"connection: close" not in peer.received
    peer.send(GET[10:])
    await settle()
    assert peer.responses == [b"200 held"] * 2
    assert b"connection: close" in peer.received
    assert peer.closed


@pytest.mark.parametrize("rest", [b"malformed\r\n", b"1\r\nxy\r\n"])
@in_virtual_time
async def test_a_malformed_body_gets_its_response_although_the_client_half_closes(rest: bytes) -> None:
    peer = ScriptedPeer()
    peer.send(CHUNKED)
    await settle()
    peer.send(rest)
    peer.half_close()
    await settle()
    assert peer.responses == [b"400 broken"]
    assert peer.closed


@in_virtual_time
async def test_a_reset_at_the_moment_of_the_idle_timeout_closes_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = ScriptedPeer()
    await asyncio.sleep(KEEP_ALIVE_S - 0.01)
    peer.reset()
    await asyncio.sleep(0.02)
    assert peer.closed
    assert caplog.text == ""


class Counting(Recorder):
    """An application that reads bodies and keeps nothing."""

    async def __call__(self, request: HttpRequest) -> tuple[Response, Sequence[Header]]:
        if request.raw_path != "/early":
            while not request.body.complete:
                await request.body.more()
        return Response(200, b""), []


@pytest.mark.parametrize(
    ("head", "body_bytes"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n", 500_000),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 60_000 + b"\r\n", 0),
        (b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX: " + b"a" * 60_000 + b"\r\n", 1),
    ],
    ids=["body", "head", "head of a request whose body is still arriving"],
)
@in_virtual_time
async def test_an_idle_connection_holds_no_memory_of_its_last_request(head: bytes, body_bytes: int) -> None:
    app, limiter = Counting(), ConnectionLimiter(20)
    peers = [ScriptedPeer(app, limiter) for _ in range(20)]
    sent = bytearray(head + b"\r\n" + bytes(body_bytes))
    tracemalloc.start(1)
    try:
        before, _ = tracemalloc.get_traced_memory()
        for peer in peers:
            peer.send(bytes(sent))
            await settle()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [peer.responses for peer in peers] == [[b"200 "]] * 20
    assert after - before < 20 * 20_000


@in_virtual_time
async def test_a_lingering_connection_is_evicted_before_an_idle_one() -> None:
    limiter = ConnectionLimiter(2)
    idle, lingering = ScriptedPeer(limiter=limiter), ScriptedPeer(limiter=limiter)
    lingering.send(LAST + b"more")
    await settle()
    assert lingering.half_closed
    ScriptedPeer(limiter=limiter)
    assert lingering.closed
    assert not idle.closed


@in_virtual_time
async def test_a_client_that_does_not_read_its_responses_does_not_keep_others_out() -> None:
    app = Held(Response(200, bytes(100_000)))
    app.release.set()
    limiter = ConnectionLimiter(1)
    unread = ScriptedPeer(app, limiter, reads=False)
    unread.send(GET * 10)
    await settle()
    other = ScriptedPeer(limiter=limiter)
    other.send(GET)
    await settle()
    assert unread.aborted
    assert other.responses == [b"200 0"]
    assert len(limiter) == 1

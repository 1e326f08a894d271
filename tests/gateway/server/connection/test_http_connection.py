"""Requests, responses and memory of a connection, with a scripted client."""

from __future__ import annotations

import pytest

from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.message import Response
from tests.support.scripted_peer import Held, Recorder, ScriptedPeer
from tests.support.virtual_time import in_virtual_time, settle

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 50_000
BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"b" * 60_000
EXPECT = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@in_virtual_time
async def test_above_the_buffer_limit_the_oldest_unfinished_heads_are_evicted() -> None:
    limiter = ConnectionLimiter(100, limit_bytes=210_000)
    peers = [ScriptedPeer(limiter=limiter) for _ in range(6)]
    for peer in peers:
        peer.send(HEAD)
        assert limiter.buffered_bytes <= 210_000
    assert [peer.closed for peer in peers] == [True, True, False, False, False, False]
    small = ScriptedPeer(limiter=limiter)
    small.send(REQUEST)
    await settle()
    assert small.responses == [b"200 0"]
    for peer in [*peers, small]:
        peer.disconnect()
    assert limiter.buffered_bytes == 0


@in_virtual_time
async def test_where_bodies_fill_the_buffer_limit_the_newest_is_refused_and_small_requests_are_not() -> None:
    limiter = ConnectionLimiter(100, limit_bytes=210_000)
    peers = [ScriptedPeer(limiter=limiter) for _ in range(5)]
    for peer in peers:
        peer.send(BODY)
        await settle()
        assert limiter.buffered_bytes <= 210_000
    small = ScriptedPeer(limiter=limiter)
    small.send(REQUEST)
    await settle()
    assert small.responses == [b"200 0"]
    assert [peer.responses for peer in peers] == [[], [], [], [b"429 broken"], [b"429 broken"]]
    for peer in peers[:3]:
        peer.send(b"b" * 4_000)
        peer.send(b"b" * 36_000)
    await settle()
    statuses = [peer.responses[0] for peer in peers[:3]]
    assert statuses == [b"429 broken", b"200 100000", b"200 100000"]  # the first to exceed the limit
    for peer in [*peers, small]:
        peer.disconnect()
    assert limiter.buffered_bytes == 0


@in_virtual_time
async def test_pipelined_input_is_buffered_unparsed_and_counted() -> None:
    limiter = ConnectionLimiter(100)
    app = Recorder()
    peer = ScriptedPeer(app, limiter)
    peer.send(REQUEST * 5000)
    assert len(REQUEST) * 4999 <= limiter.buffered_bytes <= len(REQUEST) * 5000
    assert peer.paused
    while len(app.seen) < 5000:
        await settle()
    await settle()
    assert limiter.buffered_bytes == 0
    assert peer.responses == [b"200 0"] * 5000
    peer.disconnect()


@in_virtual_time
async def test_pipelined_input_above_the_buffer_limit_makes_the_current_response_the_last() -> None:
    app, limiter = Held(), ConnectionLimiter(1, limit_bytes=50_000)
    peer = ScriptedPeer(app, limiter)
    peer.send(REQUEST)
    await settle()
    peer.send(REQUEST * 2000)
    assert limiter.buffered_bytes == 0
    app.release.set()
    await settle()
    assert peer.responses == [b"200 held"]
    assert b"connection: close" in peer.received
    assert peer.half_closed
    assert not peer.closed


@in_virtual_time
async def test_a_body_is_read_ahead_only_up_to_the_high_water_mark() -> None:
    app = Held()
    peer = ScriptedPeer(app)
    peer.send(BODY[:-60_000])
    await settle()
    peer.send(b"b" * 65_536)
    read_ahead = not peer.paused
    peer.send(b"b")
    assert read_ahead
    assert peer.paused
    app.release.set()
    await settle()
    peer.send(bytes(100_000))
    assert len(app.request.body.data) == 0  # what it had buffered is freed, and the rest discarded


@in_virtual_time
async def test_100_continue_is_sent_when_the_handler_waits_for_the_body() -> None:
    peer = ScriptedPeer()
    peer.send(EXPECT)
    await settle()
    assert peer.received == CONTINUE
    peer.send(b"body")
    await settle()
    assert peer.responses == [b"200 4"]
    assert not peer.is_ended


@pytest.mark.parametrize(
    "request_bytes",
    [
        EXPECT + b"b",
        EXPECT.replace(b"HTTP/1.1", b"HTTP/1.0"),
        EXPECT.replace(b"100-continue", b"something"),
        EXPECT.replace(b"POST / ", b"POST /early "),
    ],
)
@in_virtual_time
async def test_100_continue_is_not_sent(request_bytes: bytes) -> None:
    peer = ScriptedPeer()
    peer.send(request_bytes)
    await settle()
    assert CONTINUE not in peer.received


@in_virtual_time
async def test_a_response_without_the_expected_body_closes_the_connection() -> None:
    peer = ScriptedPeer()
    peer.send(EXPECT.replace(b"POST / ", b"POST /early "))
    await settle()
    assert peer.responses == [b"401 early"]
    assert b"connection: close" in peer.received
    assert peer.half_closed
    peer.send(REQUEST)  # taken for the body
    await settle()
    assert peer.responses == [b"401 early"]


@in_virtual_time
async def test_without_room_a_connection_is_refused_and_read_until_the_client_closes() -> None:
    limiter = ConnectionLimiter(1)
    busy = ScriptedPeer(Held(), limiter)
    busy.send(REQUEST)
    await settle()
    refused = ScriptedPeer(limiter=limiter)
    assert refused.responses == [b"429 ServerBusy"]
    refused.send(REQUEST)
    assert not refused.was_reset
    refused.half_close()
    await settle()
    assert refused.closed
    assert len(limiter) == 1


@in_virtual_time
async def test_an_idle_connection_is_evicted_and_one_with_an_unread_response_is_aborted() -> None:
    limiter = ConnectionLimiter(1)
    idle = ScriptedPeer(limiter=limiter)
    app = Held(Response(200, bytes(100_000)))
    app.release.set()
    unread = ScriptedPeer(app, limiter, reads=False)
    assert idle.closed
    assert not idle.aborted
    unread.send(REQUEST)
    await settle()
    ScriptedPeer(limiter=limiter)
    assert unread.aborted


@in_virtual_time
async def test_a_failure_of_the_handler_aborts_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        async def __call__(self, request: object) -> tuple[Response, list[tuple[bytes, bytes]]]:
            raise ValueError("fault")

    limiter = ConnectionLimiter(1)
    peer = ScriptedPeer(Failing(), limiter)
    peer.send(REQUEST)
    await settle()
    assert peer.aborted
    assert peer.received == b""
    assert len(limiter) == 0
    assert "the request handler failed" in caplog.text


@in_virtual_time
async def test_in_tls_the_end_of_one_side_is_the_end_of_the_connection() -> None:
    app = Held()
    peer = ScriptedPeer(app, tls=True)
    peer.send(REQUEST)
    await settle()
    peer.half_close()
    await settle()
    assert peer.closed
    assert app.disconnected_at == 0


@in_virtual_time
async def test_in_tls_lingering_only_reads_on() -> None:
    peer = ScriptedPeer(tls=True)
    peer.send(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"more")
    await settle()
    assert peer.responses == [b"200 0"]
    assert not peer.is_ended
    peer.half_close()
    assert peer.closed

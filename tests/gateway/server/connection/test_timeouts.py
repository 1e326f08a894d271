"""What a connection does as time passes, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.server.connection.lingering_close import LINGER_BYTES
from gateway.server.connection.timeouts import DRAIN_HEAD_S, HALF_CLOSE_PROBE_S, LINGER_IDLE_S, LINGER_S
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.message import Response
from tests.support.scripted_peer import KEEP_ALIVE_S, TRANSFER_S, Held, ScriptedPeer
from tests.support.virtual_time import in_virtual_time, settle

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
EARLY = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BRIEF = 0.01


@in_virtual_time
async def test_a_new_connection_closes_when_no_request_arrives() -> None:
    peer = ScriptedPeer()
    await asyncio.sleep(KEEP_ALIVE_S - BRIEF)
    assert not peer.is_ended
    await asyncio.sleep(2 * BRIEF)
    assert peer.closed
    assert peer.received == b""


@in_virtual_time
async def test_idle_time_counts_from_the_last_response() -> None:
    peer = ScriptedPeer()
    await asyncio.sleep(KEEP_ALIVE_S - BRIEF)
    peer.send(GET)
    await asyncio.sleep(KEEP_ALIVE_S - BRIEF)
    assert not peer.is_ended
    await asyncio.sleep(2 * BRIEF)
    assert peer.closed
    assert peer.responses == [b"200 0"]


@in_virtual_time
async def test_a_head_that_arrives_byte_by_byte_gets_408_after_the_transfer_timeout() -> None:
    peer = ScriptedPeer()
    await asyncio.sleep(KEEP_ALIVE_S / 2)
    for byte in GET[: int(TRANSFER_S)]:
        assert peer.responses == []
        peer.send(bytes((byte,)))
        await asyncio.sleep(1)
    await asyncio.sleep(BRIEF)
    assert peer.responses == [b"408 RequestTimeout"]
    assert peer.half_closed


@in_virtual_time
async def test_a_slow_response_is_not_cut_short_by_the_idle_timeout() -> None:
    app = Held()
    peer = ScriptedPeer(app)
    peer.send(GET)
    await asyncio.sleep(10 * KEEP_ALIVE_S)
    app.release.set()
    await settle()
    assert peer.responses == [b"200 held"]
    await asyncio.sleep(KEEP_ALIVE_S - BRIEF)
    assert not peer.closed


@in_virtual_time
async def test_the_rest_of_an_unneeded_body_gets_no_longer_than_the_idle_timeout() -> None:
    peer = ScriptedPeer()
    peer.send(EARLY)
    for _ in range(int(KEEP_ALIVE_S)):
        assert not peer.is_ended
        peer.send(b"x")
        await asyncio.sleep(1)
    assert peer.responses == [b"401 early"]
    assert peer.half_closed


LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"more"


@in_virtual_time
async def test_lingering_ends_when_the_client_sends_nothing() -> None:
    limiter = ConnectionLimiter(1)
    peer = ScriptedPeer(limiter=limiter)
    peer.send(LAST)
    await settle()
    assert peer.responses == [b"200 0"]
    assert peer.half_closed
    await asyncio.sleep(LINGER_IDLE_S + BRIEF)
    assert len(limiter) == 1  # four bytes came since the request
    await asyncio.sleep(LINGER_IDLE_S)
    assert peer.closed
    assert not peer.was_reset


@in_virtual_time
async def test_lingering_ends_although_the_client_keeps_sending() -> None:
    peer = ScriptedPeer()
    peer.send(LAST)
    for _ in range(int(LINGER_S) - 1):
        await asyncio.sleep(1)
        assert not peer.closed
        peer.send(b"x")
    await asyncio.sleep(LINGER_IDLE_S)
    assert peer.closed


@in_virtual_time
async def test_lingering_ends_after_a_limited_number_of_bytes() -> None:
    peer = ScriptedPeer()
    peer.send(LAST)
    await settle()
    piece = bytes(1024 * 1024)
    for _ in range(LINGER_BYTES // len(piece) - 1):
        peer.send(piece)
        assert not peer.closed
    peer.send(piece)
    assert peer.closed


@in_virtual_time
async def test_lingering_ends_when_the_client_closes() -> None:
    peer = ScriptedPeer()
    peer.send(LAST)
    await settle()
    peer.half_close()
    assert peer.closed
    assert not peer.aborted


LARGE = Response(200, bytes(300_000))


@in_virtual_time
async def test_a_client_that_reads_slowly_receives_its_whole_last_response() -> None:
    app = Held(LARGE)
    app.release.set()
    peer = ScriptedPeer(app, reads=False)
    peer.send(LAST.removesuffix(b"more"))
    await settle()
    while peer.get_write_buffer_size():
        peer.read(10_000)
        await asyncio.sleep(TRANSFER_S - BRIEF)
    assert len(peer.responses[0]) == 300_004
    assert not peer.aborted


@pytest.mark.parametrize("request_bytes", [LAST.removesuffix(b"more"), GET * 2])
@in_virtual_time
async def test_a_client_that_stops_reading_is_disconnected(request_bytes: bytes) -> None:
    app = Held(LARGE)
    app.release.set()
    limiter = ConnectionLimiter(1)
    peer = ScriptedPeer(app, limiter, reads=False)
    peer.send(request_bytes)
    await settle()
    peer.read(10_000)
    await asyncio.sleep(2 * TRANSFER_S + BRIEF)
    assert peer.aborted
    assert len(limiter) == 0


@in_virtual_time
async def test_no_further_response_is_written_to_a_client_that_does_not_read() -> None:
    app = Held(LARGE)
    app.release.set()
    peer = ScriptedPeer(app, reads=False)
    peer.send(GET * 3)
    await asyncio.sleep(TRANSFER_S / 2)
    assert peer.get_write_buffer_size() < 2 * 300_000
    while peer.get_write_buffer_size():
        peer.read(100_000)
        await asyncio.sleep(1)
    assert len(peer.responses) == 3


@in_virtual_time
async def test_a_client_that_half_closed_receives_100_and_then_its_response() -> None:
    app = Held()
    peer = ScriptedPeer(app)
    peer.send(GET)
    peer.half_close()
    await asyncio.sleep(HALF_CLOSE_PROBE_S - BRIEF)
    assert peer.received == b""
    await asyncio.sleep(60)
    assert peer.received == CONTINUE
    app.release.set()
    await settle()
    assert peer.responses == [b"200 held"]
    assert b"connection: close" in peer.received
    assert peer.closed


@in_virtual_time
async def test_a_client_of_http_1_0_that_half_closed_receives_nothing_but_its_response() -> None:
    app = Held()
    peer = ScriptedPeer(app)
    peer.send(GET.replace(b"1.1", b"1.0"))
    peer.half_close()
    await asyncio.sleep(60)
    assert peer.received == b""
    app.release.set()
    await settle()
    assert peer.responses == [b"200 held"]


@in_virtual_time
async def test_the_request_of_a_client_that_closed_is_dropped_after_two_probes() -> None:
    app = Held()
    peer = ScriptedPeer(app)
    peer.send(GET)
    peer.vanish()
    await asyncio.sleep(60)
    assert app.disconnected_at == pytest.approx(2 * HALF_CLOSE_PROBE_S)
    assert peer.received == b""


@in_virtual_time
async def test_a_drain_waits_a_second_for_a_head_that_is_arriving() -> None:
    peer = ScriptedPeer()
    peer.send(GET[:10])
    assert not peer.connection.finish()
    await asyncio.sleep(DRAIN_HEAD_S - BRIEF)
    assert not peer.connection.finish()
    peer.send(GET[10:])
    await settle()
    assert peer.responses == [b"200 0"]
    assert b"connection: close" in peer.received
    assert peer.closed


@in_virtual_time
async def test_a_drain_does_not_wait_longer_for_a_head() -> None:
    peer = ScriptedPeer()
    peer.send(GET[:10])
    await asyncio.sleep(DRAIN_HEAD_S)
    assert peer.connection.finish()
    assert peer.closed


@in_virtual_time
async def test_a_drain_reads_a_request_that_is_in_the_kernel() -> None:
    peer = ScriptedPeer()
    peer.arrive(GET)
    assert not peer.connection.finish()
    await settle()
    await settle()
    assert peer.responses == [b"200 0"]
    assert peer.closed
    assert not peer.was_reset

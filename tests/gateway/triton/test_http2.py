"""One HTTP/2 connection against a peer that is a script: everything it may send, in any pieces."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Iterable
from itertools import pairwise
from typing import Any

import grpc
import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.triton import http2
from gateway.triton.frames import (
    DEFAULT_WINDOW,
    FRAME_BYTES,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    NO_TABLE,
    PREFACE,
    Blocks,
    Flag,
    Frames,
    Kind,
    ProtocolError,
    Reason,
    Setting,
    frame,
    header_block,
    number,
    settings,
    settings_of,
    unpadded,
)
from gateway.triton.http2 import Connection
from gateway.triton.status import CallFailed

HEAD = header_block([(b":method", b"POST"), (b":path", b"/s/m")])
GREETING = frame(Kind.SETTINGS, 0, 0)
BEGIN = header_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
Part = tuple[int, int, int, bytes]


def trailers(status: bytes = b"0") -> bytes:
    return header_block([(b"grpc-status", status)])


def message(payload: bytes) -> bytes:
    return struct.pack(">BI", 0, len(payload)) + payload


def answer(stream: int, payload: bytes = b"pong", status: bytes = b"0") -> bytes:
    """All frames of a call that went well, or did not."""
    return (
        frame(Kind.HEADERS, Flag.END_HEADERS, stream, BEGIN)
        + frame(Kind.DATA, 0, stream, message(payload))
        + frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, stream, trailers(status))
    )


def goaway(last: int, reason: int = Reason.NO_ERROR) -> bytes:
    return frame(Kind.GOAWAY, 0, 0, struct.pack(">II", last, reason))


class Wire(asyncio.Transport):
    """The transport and the peer in one: keeps what was sent as frames."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.frames = Frames()
        self.sent: list[Part] = []
        self.aborted = False
        self.began = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.aborted
        data = bytes(data)
        if not self.began:
            assert data.startswith(PREFACE)
            data, self.began = data.removeprefix(PREFACE), True
        self.sent += self.frames.cut(data)

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def of(self, kind: int, stream: int | None = None) -> list[Part]:
        return [part for part in self.sent if part[0] == kind and stream in (None, part[2])]

    def said(self, kind: int, stream: int) -> list[int]:
        """The number in each of such frames."""
        return [int.from_bytes(part[3], "big") for part in self.of(kind, stream)]

    def data(self, stream: int) -> bytes:
        return b"".join(part[3] for part in self.of(Kind.DATA, stream))


def connected(greeting: bytes = GREETING, limit: int = 1000) -> tuple[Connection, Wire]:
    connection = Connection(limit, lambda: None)
    wire = Wire(connection)
    connection.connection_made(wire)
    connection.data_received(greeting)
    return connection, wire


async def begun(
    connection: Connection, request: bytes = b"ping", timeout_s: float = 5
) -> asyncio.Task[bytes]:
    """A call that has been sent."""
    task = asyncio.create_task(connection.call(HEAD, request, timeout_s))
    await asyncio.sleep(0)
    return task


async def code_of(call: Coroutine[Any, Any, bytes] | asyncio.Task[bytes]) -> grpc.StatusCode:
    with pytest.raises(CallFailed) as caught:
        await call
    return caught.value.code


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


# --- frames and header blocks -----------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([0, 4, 7, 77]), st.integers(0, 255), st.binary(max_size=40))),
    st.lists(st.integers(0, 10_000)),
)
def test_frames_are_the_same_in_whatever_pieces_they_come(
    parts: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    sent = [(kind, flags, place, payload) for place, (kind, flags, payload) in enumerate(parts)]
    frames = Frames()
    data = b"".join(frame(*part) for part in sent)
    assert [part for piece in pieces(data, cuts) for part in frames.cut(piece)] == sent


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4), st.integers(0, 20), st.booleans())
def test_a_header_block_is_the_same_in_however_many_frames(
    block: bytes, cuts: list[int], padding: int, priority: bool
) -> None:
    first, *others = pieces(block, cuts)
    payload = bytes([padding]) + bytes(5 if priority else 0) + first + bytes(padding)
    flags = Flag.PADDED | Flag.END_STREAM | (Flag.PRIORITY if priority else 0)
    data = frame(Kind.HEADERS, flags | (0 if others else Flag.END_HEADERS), 3, payload)
    for place, other in enumerate(others, start=1):
        data += frame(Kind.CONTINUATION, Flag.END_HEADERS if place == len(others) else 0, 3, other)
    (whole,) = Frames().cut(data)
    assert (whole[0], whole[1] & Flag.END_STREAM, whole[2:]) == (Kind.HEADERS, Flag.END_STREAM, (3, block))


@pytest.mark.parametrize(
    "wrong",
    [
        frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, b""),
        frame(Kind.HEADERS, 0, 1, BEGIN) + frame(Kind.DATA, 0, 1, b""),
        frame(Kind.HEADERS, 0, 1, BEGIN) + frame(Kind.HEADERS, Flag.END_HEADERS, 1, BEGIN),
        frame(Kind.HEADERS, 0, 1, BEGIN) + frame(Kind.CONTINUATION, Flag.END_HEADERS, 3, b""),
        frame(Kind.HEADERS, 0, 1, b"") + 5 * frame(Kind.CONTINUATION, 0, 1, bytes(FRAME_BYTES)),
        frame(Kind.HEADERS, Flag.PADDED, 1, b""),
        frame(Kind.HEADERS, Flag.PADDED, 1, b"\x01"),
        frame(Kind.HEADERS, Flag.PRIORITY, 1, b"1234"),
        frame(Kind.PING, 0, 0, b"1234567"),
        frame(Kind.WINDOW_UPDATE, 0, 0, b""),
        frame(Kind.RST_STREAM, 0, 1, b"12345"),
        struct.pack(">IBI", (FRAME_BYTES + 1) << 8, 0, 1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_frames_that_must_not_be_are_refused(wrong: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Frames().cut(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        b"12345",
        settings([(Setting.INITIAL_WINDOW_SIZE, LARGEST_WINDOW + 1)]),
        settings([(Setting.MAX_FRAME_SIZE, 2**24)]),
        settings([(Setting.MAX_FRAME_SIZE, FRAME_BYTES - 1)]),
    ],
)
def test_settings_out_of_range_are_refused(wrong: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(settings_of(wrong))


@given(st.binary(max_size=50), st.integers(0, 255))
def test_padding_goes(content: bytes, padding: int) -> None:
    assert unpadded(Flag.PADDED, bytes([padding]) + content + bytes(padding)) == content


@given(
    st.lists(
        st.tuples(st.from_regex(rb"\A[a-z-]{1,20}\Z"), st.binary(max_size=40)),
        unique_by=lambda header: header[0],
    )
)
def test_a_block_decodes_to_what_was_encoded_again_and_again(headers: list[tuple[bytes, bytes]]) -> None:
    block, blocks = header_block(headers), Blocks()
    assert blocks.decode(block) == blocks.decode(block) == dict(headers)


def test_a_server_that_shrinks_its_table_first_is_understood() -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([(b":status", b"200"), (b"grpc-status", b"0")])
    assert block[0] == 0x20
    assert Blocks().decode(block) == {b":status": b"200", b"grpc-status": b"0"}


def test_a_server_that_uses_a_table_all_the_same_fails_and_never_yields_old_headers() -> None:
    encoder, blocks = hpack.Encoder(), Blocks()
    assert blocks.decode(encoder.encode([(b"grpc-status", b"0")])) == {b"grpc-status": b"0"}
    indexed = encoder.encode([(b"grpc-status", b"0")])
    for _ in range(2):
        with pytest.raises(ProtocolError):
            blocks.decode(indexed)
    with pytest.raises(ProtocolError):  # a table of 4096 bytes
        blocks.decode(b"\x3f\xe1\x1f" + trailers())


@given(st.binary(max_size=200))
def test_any_bytes_as_a_header_block_decode_or_are_refused(block: bytes) -> None:
    try:
        Blocks().decode(block)
    except ProtocolError:
        return


def test_what_is_remembered_of_header_blocks_is_bounded() -> None:
    blocks = Blocks()
    for place in range(1000):
        blocks.decode(header_block([(b"grpc-message", b"%d" % place)]))
    blocks.decode(header_block([(b"grpc-message", bytes(600))]))
    assert len(blocks._known) <= 256
    assert max(map(len, blocks._known)) <= 512


# --- calls ------------------------------------------------------------------------------------------


async def test_a_call_is_one_head_and_one_message() -> None:
    connection, wire = connected()
    task = await begun(connection, b"ping", 1.2345)
    ((_, flags, stream, block),) = wire.of(Kind.HEADERS)
    assert (flags, stream, block[0]) == (Flag.END_HEADERS, 1, 0x20)
    headers = dict(hpack.Decoder().decode(block, raw=True))
    assert headers == {b":method": b"POST", b":path": b"/s/m"}
    assert wire.of(Kind.DATA) == [(Kind.DATA, Flag.END_STREAM, 1, message(b"ping"))]
    connection.data_received(answer(1))
    assert await task == b"pong"
    second = await begun(connection)
    assert wire.of(Kind.HEADERS)[1][2:] == (3, HEAD)
    connection.data_received(answer(3))
    assert await second == b"pong"
    assert not wire.of(Kind.RST_STREAM)


@given(st.lists(st.integers(0, 10_000), max_size=30), st.integers(0, 50), st.binary(max_size=300))
def test_an_answer_is_the_same_in_whatever_frames_and_pieces(
    cuts: list[int], padding: int, payload: bytes
) -> None:
    async def scenario() -> bytes:
        connection, wire = connected()
        task = await begun(connection)
        data = frame(Kind.HEADERS, Flag.END_HEADERS, 1, BEGIN) + frame(99, 255, 7, b"unknown")
        for part in pieces(message(payload), cuts):
            padded = bytes([padding]) + part + bytes(padding)
            data += frame(Kind.DATA, Flag.PADDED, 1, padded) + frame(Kind.PING, 0, 0, b"12345678")
        data += frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, trailers())
        for piece in pieces(data, cuts):
            connection.data_received(piece)
        assert all(part[1:] == (Flag.ACK, 0, b"12345678") for part in wire.of(Kind.PING))
        return await task

    assert asyncio.run(scenario()) == payload


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (answer(1, status=b"5"), grpc.StatusCode.NOT_FOUND),
        (answer(1, status=b"99"), grpc.StatusCode.UNKNOWN),
        (frame(Kind.HEADERS, 5, 1, BEGIN + trailers(b"14")), grpc.StatusCode.UNAVAILABLE),
        (frame(Kind.HEADERS, 5, 1, BEGIN + trailers(b"0")), grpc.StatusCode.INTERNAL),
        (frame(Kind.HEADERS, 5, 1, header_block([(b":status", b"503")])), grpc.StatusCode.UNAVAILABLE),
        (frame(Kind.HEADERS, 5, 1, header_block([(b":status", b"404")])), grpc.StatusCode.UNKNOWN),
        (
            frame(Kind.DATA, 0, 1, message(b"a") + message(b"b")) + frame(Kind.HEADERS, 5, 1, trailers()),
            grpc.StatusCode.INTERNAL,
        ),
        (
            frame(Kind.DATA, 0, 1, b"\x01\0\0\0\x01z") + frame(Kind.HEADERS, 5, 1, trailers()),
            grpc.StatusCode.INTERNAL,
        ),
        (frame(Kind.DATA, Flag.END_STREAM, 1, message(b"a")), grpc.StatusCode.UNKNOWN),
        (
            frame(Kind.DATA, 0, 1, bytes(1006)) + frame(Kind.HEADERS, 5, 1, trailers()),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ),
        (frame(Kind.RST_STREAM, 0, 1, number(Reason.REFUSED_STREAM)), grpc.StatusCode.UNAVAILABLE),
        (frame(Kind.RST_STREAM, 0, 1, number(Reason.CANCEL)), grpc.StatusCode.CANCELLED),
        (frame(Kind.RST_STREAM, 0, 1, number(Reason.NO_ERROR)), grpc.StatusCode.INTERNAL),
        (
            goaway(1) + frame(Kind.RST_STREAM, 0, 1, number(Reason.CANCEL)),
            grpc.StatusCode.UNAVAILABLE,
        ),
        (goaway(0), grpc.StatusCode.UNAVAILABLE),
        (frame(Kind.PUSH_PROMISE, 4, 1, number(2) + BEGIN), grpc.StatusCode.UNAVAILABLE),
        (frame(Kind.HEADERS, 5, 1, b"\xff\xff"), grpc.StatusCode.UNAVAILABLE),
        (frame(Kind.DATA, Flag.PADDED, 1, b"\x01"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_each_end_of_a_call_has_one_status_and_leaves_nothing(
    frames: bytes, code: grpc.StatusCode
) -> None:
    connection, wire = connected()
    task = await begun(connection)
    connection.data_received(frames)
    assert await code_of(task) is code
    assert (connection.calls, connection._blocked) == (0, {})
    # Late frames for a stream that is no more mean nothing.
    if not wire.aborted:
        connection.data_received(
            answer(1) + frame(Kind.RST_STREAM, 0, 1, number(8)) + frame(8, 0, 1, number(9))
        )
        again = await begun(connection)
        connection.data_received(answer(3))
        assert await again == b"pong"


async def test_a_lost_connection_is_unavailable_and_not_usable_before_its_calls_hear_of_it() -> None:
    connection, _ = connected()
    tasks = [await begun(connection) for _ in range(3)]
    connection.connection_lost(None)
    assert not connection.usable
    assert {await code_of(task) for task in tasks} == {grpc.StatusCode.UNAVAILABLE}
    assert await code_of(connection.call(HEAD, b"", 5)) is grpc.StatusCode.UNAVAILABLE
    assert connection.closed.done()


async def abandoned(connection: Connection) -> None:
    task = await begun(connection)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_whose_answer_is_lost_does_not_keep_its_message() -> None:
    connection, wire = connected()
    with pytest.raises(CallFailed):
        await connection.call(HEAD, b"x" * 10_000, 0.01)
    assert connection.calls == 1
    assert len(wire.data(1)) == 10_005
    assert [len(call.message) for call in connection._calls.values()] == [0]
    wire.abort()
    await connection.closed


async def test_the_server_hears_neither_of_a_deadline_nor_of_a_cancellation() -> None:
    connection, wire = connected()
    assert await code_of(connection.call(HEAD, b"", 0.01)) is grpc.StatusCode.DEADLINE_EXCEEDED
    await abandoned(connection)
    assert [part[3] for part in wire.of(Kind.HEADERS)] == [NO_TABLE + HEAD, HEAD]
    assert (wire.of(Kind.RST_STREAM), connection.calls) == ([], 2)
    third = await begun(connection)
    connection.data_received(answer(3) + answer(5) + answer(1))
    assert await third == b"pong"
    assert (wire.aborted, connection.calls) == (False, 0)


async def test_a_connection_that_leaves_waits_for_calls_that_nobody_waits_for() -> None:
    connection, wire = connected()
    await abandoned(connection)
    connection.leave()
    assert not wire.aborted
    connection.data_received(answer(1))
    assert wire.aborted


async def test_a_connection_that_leaves_does_not_wait_for_such_calls_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2, "QUIET_S", 0.02)
    connection, wire = connected()
    await abandoned(connection)
    connection.leave()
    await asyncio.sleep(0.1)
    assert wire.aborted


async def test_a_call_that_is_blocked_when_the_connection_is_lost_is_unavailable() -> None:
    connection, _ = connected()
    task = await begun(connection, bytes(DEFAULT_WINDOW))
    connection.connection_lost(None)
    assert await code_of(task) is grpc.StatusCode.UNAVAILABLE


async def test_whoever_waits_for_room_hears_when_a_given_up_call_makes_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2, "_MOST_CALLS", 2)
    heard: list[bool] = []
    connection = Connection(1000, lambda: heard.append(connection.has_room))
    wire = Wire(connection)
    connection.connection_made(wire)
    connection.data_received(GREETING)
    await abandoned(connection)
    await abandoned(connection)
    heard.clear()
    connection.data_received(answer(1))
    connection.data_received(answer(3))
    assert heard == [True]


async def test_a_connection_full_of_calls_that_nobody_waits_for_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2, "QUIET_S", 0.02)
    monkeypatch.setattr(http2, "_MOST_CALLS", 2)
    connection, wire = connected()

    async def lives_on() -> bool:
        """It is not silent, it only does not answer."""
        for _ in range(20):
            if not wire.aborted:
                connection.data_received(frame(Kind.PING, 0, 0, bytes(8)))
                await asyncio.sleep(0.01)
        return not wire.aborted

    await abandoned(connection)
    assert await lives_on()
    await abandoned(connection)
    assert not await lives_on()


async def test_a_server_that_never_answers_gets_no_more_calls_in_the_end() -> None:
    connection, _ = connected()
    for _ in range(http2._MOST_CALLS):
        assert connection.has_room
        await abandoned(connection)
    assert (connection.usable, connection.has_room) == (True, False)
    connection.data_received(answer(1))
    assert connection.has_room


# --- flow control -------------------------------------------------------------------------------------


@given(st.integers(0, 200_000), st.lists(st.integers(1, 40_000), max_size=12), st.integers(0, 70_000))
def test_what_is_sent_never_exceeds_the_windows_and_arrives_whole(
    size: int, updates: list[int], initial: int
) -> None:
    async def scenario() -> None:
        connection, wire = connected(
            frame(Kind.SETTINGS, 0, 0, settings([(Setting.INITIAL_WINDOW_SIZE, initial)]))
        )
        request = bytes(size)
        task = await begun(connection, request)
        total, stream, whole = size + 5, initial, DEFAULT_WINDOW
        for update in updates:
            assert len(wire.data(1)) == min(total, stream, whole)
            connection.data_received(frame(Kind.WINDOW_UPDATE, 0, 1, number(update)))
            stream += update
            assert len(wire.data(1)) == min(total, stream, whole)
            connection.data_received(frame(Kind.WINDOW_UPDATE, 0, 0, number(update)))
            whole += update
        connection.data_received(
            frame(Kind.WINDOW_UPDATE, 0, 0, number(2**20))
            + frame(Kind.SETTINGS, 0, 0, settings([(Setting.INITIAL_WINDOW_SIZE, 2**20)]))
        )
        assert wire.data(1) == message(request)
        ends = [bool(part[1] & Flag.END_STREAM) for part in wire.of(Kind.DATA)]
        assert (sum(ends), ends[-1]) == (1, True)
        assert max(len(part[3]) for part in wire.of(Kind.DATA)) <= FRAME_BYTES
        connection.data_received(answer(1))
        assert await task == b"pong"

    asyncio.run(scenario())


async def test_a_window_made_smaller_than_what_was_sent_stays_closed_until_it_is_paid_back() -> None:
    connection, wire = connected()
    task = await begun(connection, bytes(100_000))
    assert len(wire.data(1)) == DEFAULT_WINDOW
    connection.data_received(
        frame(Kind.SETTINGS, 0, 0, settings([(Setting.INITIAL_WINDOW_SIZE, 0)]))
        + frame(Kind.WINDOW_UPDATE, 0, 0, number(10**6))
        + frame(Kind.WINDOW_UPDATE, 0, 1, number(DEFAULT_WINDOW))
    )
    assert len(wire.data(1)) == DEFAULT_WINDOW
    connection.data_received(frame(Kind.WINDOW_UPDATE, 0, 1, number(7)))
    assert len(wire.data(1)) == DEFAULT_WINDOW + 7
    connection.data_received(answer(1))  # before it was asked to the end
    assert await task == b"pong"
    assert wire.said(Kind.RST_STREAM, 1) == [Reason.NO_ERROR]


async def test_a_cancelled_blocked_call_takes_no_window_from_the_next() -> None:
    connection, wire = connected()
    tasks = [await begun(connection, bytes(DEFAULT_WINDOW - 5)) for _ in range(3)]
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    connection.data_received(frame(Kind.WINDOW_UPDATE, 0, 0, number(DEFAULT_WINDOW)))
    assert [len(wire.data(stream)) for stream in (1, 3, 5)] == [DEFAULT_WINDOW, 0, DEFAULT_WINDOW]
    connection.data_received(answer(1) + answer(5))
    assert {await tasks[0], await tasks[2]} == {b"pong"}


async def test_what_was_received_is_given_back_to_the_servers_window() -> None:
    connection, wire = connected(limit=2**25)
    task = await begun(connection)
    part = bytes(FRAME_BYTES)
    body = message(bytes(2**24 - 5))
    connection.data_received(frame(Kind.HEADERS, Flag.END_HEADERS, 1, BEGIN))
    for at in range(0, len(body), len(part)):
        connection.data_received(frame(Kind.DATA, 0, 1, body[at : at + len(part)]))
    connection.data_received(frame(Kind.HEADERS, 5, 1, trailers()))
    assert len(await task) == 2**24 - 5
    assert wire.said(Kind.WINDOW_UPDATE, 0) == [LARGEST_WINDOW - DEFAULT_WINDOW, 2**24]


# --- the connection's own life ------------------------------------------------------------------------


@pytest.mark.parametrize("first", [frame(Kind.PING, 0, 0, bytes(8)), goaway(0), answer(1), b"HTTP/1.1 200"])
async def test_a_peer_that_does_not_greet_is_left(first: bytes) -> None:
    connection, wire = connected(first)
    assert wire.aborted
    assert not connection.usable
    await asyncio.sleep(0)
    assert connection.closed.done()


async def test_the_greeting_is_acknowledged_and_limits_calls() -> None:
    def allowed(calls: int) -> bytes:
        return frame(Kind.SETTINGS, 0, 0, settings([(Setting.MAX_CONCURRENT_STREAMS, calls)]))

    connection, wire = connected(allowed(0))
    assert (Kind.SETTINGS, Flag.ACK, 0, b"") in wire.sent
    room = [connection.has_room]
    connection.data_received(allowed(1))
    room.append(connection.has_room)
    task = await begun(connection)
    room.append(connection.has_room)
    connection.data_received(answer(1))
    await task
    assert [*room, connection.has_room] == [False, True, False, True]
    assert connection.usable


async def test_a_graceful_goaway_lets_calls_end_and_a_second_one_tells_which() -> None:
    connection, wire = connected()
    tasks = [await begun(connection) for _ in range(3)]
    connection.data_received(goaway(LARGEST_STREAM))
    assert not connection.usable
    connection.data_received(goaway(3))
    assert await code_of(tasks[2]) is grpc.StatusCode.UNAVAILABLE
    connection.data_received(answer(1))
    assert await tasks[0] == b"pong"
    assert not wire.aborted
    connection.data_received(answer(3))
    assert await tasks[1] == b"pong"
    assert wire.aborted


async def test_leaving_waits_for_calls_and_begins_none() -> None:
    connection, wire = connected()
    task = await begun(connection)
    connection.leave()
    assert await code_of(connection.call(HEAD, b"", 5)) is grpc.StatusCode.UNAVAILABLE
    connection.data_received(answer(1))
    assert await task == b"pong"
    assert wire.aborted


async def test_a_connection_without_stream_numbers_left_finishes_and_says_so() -> None:
    told: list[bool] = []
    connection = Connection(1000, lambda: told.append(connection.usable))
    wire = Wire(connection)
    connection.connection_made(wire)
    connection.data_received(GREETING)
    connection._next_stream = LARGEST_STREAM - 2
    last = await begun(connection)
    assert told == [True]
    second = await begun(connection)
    assert told == [True, False]
    connection.data_received(answer(LARGEST_STREAM - 2) + answer(LARGEST_STREAM))
    assert {await last, await second} == {b"pong"}
    assert wire.aborted


async def test_a_connection_given_up_before_it_came_about_is_closed_when_it_does() -> None:
    connection = Connection(1000, lambda: None)
    connection.abort()
    wire = Wire(connection)
    connection.connection_made(wire)
    assert wire.aborted


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "QUIET_S", 0.05)
    monkeypatch.setattr(http2, "PING_TIMEOUT_S", 0.05)


async def until(met: Callable[[], bool]) -> None:
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


@pytest.mark.usefixtures("impatient")
async def test_a_dead_peer_is_found_even_when_every_call_runs_out_of_time() -> None:
    connection, wire = connected()
    assert await code_of(connection.call(HEAD, b"", 0.01)) is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: wire.aborted)
    assert len(wire.of(Kind.PING)) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_slow_peer_that_answers_pings_is_kept_and_an_idle_one_is_not_asked() -> None:
    connection, wire = connected()
    await asyncio.sleep(0.15)
    assert not wire.of(Kind.PING)
    task = await begun(connection)
    for asked in (1, 2):
        await until(lambda asked=asked: len(wire.of(Kind.PING)) == asked)  # type: ignore[misc]
        connection.data_received(frame(Kind.PING, Flag.ACK, 0, bytes(8)))
    connection.data_received(answer(1))
    assert await task == b"pong"
    assert not wire.aborted

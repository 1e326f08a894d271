"""What must not stop the gRPC port: each attack has its status, and the next good call is answered."""

from __future__ import annotations

import asyncio
import gzip
import struct
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from functools import cache

import psutil
import pytest
from grpc_health.v1 import health_pb2

from tests.support.fake_triton import FakeTriton
from tests.support.grpc_calls import INFER, SERVICE, STREAM, grpc_stubs, infer_request
from tests.support.harness import TOKEN, Running, running_gateway, settings_for, until
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Field,
    Http2Peer,
    frame,
    header_block,
    http2_peer,
    message,
    request_fields,
)

AUTH = (b"authorization", f"Bearer {TOKEN}".encode())
CHECK, WATCH = b"/grpc.health.v1.Health/Check", b"/grpc.health.v1.Health/Watch"
REFLECTION = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIVE = f"{SERVICE}/ServerLive".encode()
OK, CANCELLED, INVALID, DEADLINE, EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 1, 3, 4, 8, 12, 13
PERMISSION_DENIED, UNAUTHENTICATED = 7, 16
GOOD = message(infer_request("good").SerializeToString())
NO_WINDOW = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)
STREAMS = 64


@pytest.fixture
async def attacked(triton: FakeTriton) -> AsyncIterator[Running]:
    """A gateway that answers at the end, and stops at once: no call is left open."""
    settings = settings_for(
        triton, grpc_port=0, transfer_timeout_s=1, grpc_max_streams=STREAMS, drain_timeout_s=20
    )
    async with running_gateway(settings) as running:
        yield running
        async with grpc_stubs(running.grpc_port) as stubs:
            assert len((await stubs.infer("good")).outputs) == 4
        running.stop.set()
        await asyncio.wait_for(running.task, 5)


async def ended(peer: Http2Peer, stream: int = 1) -> int | None:
    """Wait for the end of a stream; return its status."""

    async def over() -> bool:
        return peer.closed or peer.ended(stream)

    await until(over)
    return peer.status(stream)


async def status_of(
    port: int, body: bytes, *fields: Field, path: bytes = INFER, end: bool = True
) -> int | None:
    """Make one call; return its status."""
    async with http2_peer(port) as peer:
        peer.call(1, path, fields, None)
        await peer.send(1, body, end=end)
        return await ended(peer)


@pytest.mark.parametrize("path", [b"/\xff\xfe", b"", b"/", b"/a\0b", b"/" + b"a" * 8000, INFER + b"\xc3"])
async def test_no_path_stops_the_server(attacked: Running, path: bytes) -> None:
    assert await status_of(attacked.grpc_port, message(b""), AUTH, path=path) == UNIMPLEMENTED


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", INVALID),
        (message(b"\xff" * 100), INVALID),
        (message(b""), 5),
        (message(b"", length=1 << 20)[:3], INVALID),
        (message(b"x", length=1 << 20), INVALID),
        (message(b"x", length=1 << 30), EXHAUSTED),
        (GOOD + GOOD, OK),
        (GOOD * 100, OK),
        (message(b"x", compressed=True), INTERNAL),
    ],
)
async def test_damaged_messages_have_a_status(attacked: Running, body: bytes, status: int) -> None:
    assert await status_of(attacked.grpc_port, body, AUTH) == status


@pytest.mark.parametrize("body", [b"", GOOD[:3], GOOD[:20]])
@pytest.mark.parametrize("path", [INFER, CHECK, WATCH, LIVE])
async def test_a_message_that_never_comes_is_waited_for_as_long_as_a_transfer_may_take(
    attacked: Running, body: bytes, path: bytes
) -> None:
    assert await status_of(attacked.grpc_port, body, AUTH, path=path, end=False) == DEADLINE


async def test_a_unary_call_need_not_be_half_closed(attacked: Running) -> None:
    assert await status_of(attacked.grpc_port, GOOD, AUTH, end=False) == OK


@cache
def bomb(coding: bytes) -> bytes:
    """Nearly a megabyte that inflates to a gigabyte."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == b"gzip" else 15)
    first, other = (
        compressor.compress(bytes(1 << 24)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + 59 * other


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
@pytest.mark.parametrize("path", [INFER, CHECK, WATCH, REFLECTION, LIVE])
async def test_what_inflates_without_end_is_refused_in_little_memory(
    attacked: Running, coding: bytes, path: bytes
) -> None:
    body, process = message(await asyncio.to_thread(bomb, coding), compressed=True), psutil.Process()
    before = process.memory_info().rss
    statuses = [
        await status_of(attacked.grpc_port, body, AUTH, (b"grpc-encoding", coding), path=path)
        for _ in range(5)
    ]
    assert statuses == [EXHAUSTED] * 5
    assert process.memory_info().rss - before < 60 << 20


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
async def test_compressed_messages_are_answered(attacked: Running, coding: bytes) -> None:
    plain = infer_request("good").SerializeToString()
    body = gzip.compress(plain) if coding == b"gzip" else zlib.compress(plain)
    for damaged, status in ((body, OK), (body[:-5], INVALID), (body + b"x", INVALID)):
        sent = message(damaged, compressed=True)
        assert await status_of(attacked.grpc_port, sent, AUTH, (b"grpc-encoding", coding)) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], UNAUTHENTICATED),
        ([(b"authorization-bin", b"AAAA")], UNAUTHENTICATED),
        ([AUTH, AUTH], UNAUTHENTICATED),
        ([(b"authorization", b"Bearer \xff\xfe")], UNAUTHENTICATED),
        ([(b"authorization", b"Bearer")], UNAUTHENTICATED),
        ([AUTH, (b"x-bin", b"%%%")], INTERNAL),
        ([AUTH, (b"X-Upper", b"a")], INTERNAL),
        ([AUTH, (b"grpc-timeout", b"soon")], INTERNAL),
        ([AUTH, (b"grpc-timeout", b"99999999H")], OK),
        ([AUTH, (b"traceparent", b"\xff" * 100)], OK),
        ([AUTH, (b"cf-account-id", b"\xff")], PERMISSION_DENIED),
        ([AUTH, (b"x", b"a" * 12_000)], OK),
    ],
)
async def test_metadata_has_a_status(
    attacked: Running, fields: list[Field], status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await status_of(attacked.grpc_port, GOOD, *fields) == status
    written = capfd.readouterr().err
    assert "Traceback" not in written
    assert "xff" not in written
    assert "cygrpc" not in written


@pytest.mark.parametrize("fields", [[(b"x", b"a" * 1_000_000)], [(b"x%d" % n, b"a") for n in range(5000)]])
async def test_large_metadata_is_refused(attacked: Running, fields: list[Field]) -> None:
    async with http2_peer(attacked.grpc_port) as peer:

        async def greeted() -> bool:
            return any(kind == SETTINGS for kind, *_ in peer.frames)

        await until(greeted)
        await asyncio.sleep(0.1)
        peer.call(1, INFER, [AUTH, *fields], GOOD)
        assert await ended(peer) == EXHAUSTED


async def test_damaged_messages_of_reflection_have_a_status(attacked: Running) -> None:
    body = message(b"\xff" * 100)
    assert await status_of(attacked.grpc_port, body, path=REFLECTION) == INVALID


@pytest.mark.parametrize("path", [WATCH, REFLECTION, CHECK, LIVE])
@pytest.mark.parametrize("settings", [b"", NO_WINDOW])
async def test_floods_without_a_token_leave_room_for_callers_and_probes(
    attacked: Running, path: bytes, settings: bytes
) -> None:
    """Hundreds that open calls and then send nothing, or read nothing."""
    async with AsyncExitStack() as everything:
        for _ in range(8):
            peer = await everything.enter_async_context(http2_peer(attacked.grpc_port, settings=settings))
            for stream in range(1, STREAMS, 2):
                peer.call(stream, path, [], message(b"") if settings else None)
        async with grpc_stubs(attacked.grpc_port) as stubs:
            for _ in range(3):
                assert len((await stubs.infer("good")).outputs) == 4
                await stubs.health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                await asyncio.sleep(0.1)


async def test_calls_above_the_limit_are_refused_and_not_cancelled(attacked: Running) -> None:
    async with AsyncExitStack() as everything:
        peers = [await everything.enter_async_context(http2_peer(attacked.grpc_port)) for _ in range(4)]
        for peer in peers:
            for stream in range(1, 2 * STREAMS, 2):
                peer.call(stream, INFER, [AUTH], None)

        async def one_refused() -> bool:
            return all(any(peer.ended(stream) for stream in range(1, 2 * STREAMS, 2)) for peer in peers[1:])

        await until(one_refused)
        async with grpc_stubs(attacked.grpc_port) as stubs:
            await stubs.health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        blocks = [payload for peer in peers for kind, _, _, payload in peer.frames if kind == HEADERS]
        assert any(b"Capacity temporarily exceeded" in block for block in blocks)
        assert not any(
            peer.status(stream) == CANCELLED for peer in peers for stream in range(1, 2 * STREAMS, 2)
        )


@pytest.mark.parametrize("reads", [True, False])
async def test_clients_that_vanish_without_reading_leave_no_call_open(attacked: Running, reads: bool) -> None:
    """The fixture's gateway would wait for them when it stops."""
    for path in (INFER, STREAM):
        async with http2_peer(attacked.grpc_port, settings=NO_WINDOW, reads=reads) as peer:
            for stream in range(1, 20, 2):
                peer.call(stream, path, [AUTH], None)
                peer.data(stream, GOOD * (1 if path == INFER else 20))
            await asyncio.sleep(0.3)


async def test_streams_that_are_reset_at_once_cost_little(attacked: Running) -> None:
    block = header_block(request_fields(INFER, [AUTH]))
    reset = struct.pack(">I", 8)
    async with AsyncExitStack() as everything:
        for _ in range(4):
            peer = await everything.enter_async_context(http2_peer(attacked.grpc_port))
            for stream in range(1, 4000, 2):
                opened = frame(HEADERS, END_HEADERS, stream, block)
                peer.writer.write(opened + frame(RST_STREAM, 0, stream, reset))
            await asyncio.wait_for(peer.writer.drain(), 5)
        async with grpc_stubs(attacked.grpc_port) as stubs:
            # Others wait for a moment, and then neither time nor places are lost.
            await stubs.health.Check(health_pb2.HealthCheckRequest(), timeout=2)
            started = time.monotonic()
            for _ in range(20):
                assert len((await stubs.infer("good", timeout_s=2)).outputs) == 4
            assert time.monotonic() - started < 2
    assert await attacked.client.metric("tritonflare_requests_in_flight") == 0


@pytest.mark.parametrize("sent", [b"", GOOD[:20]])
async def test_a_call_that_is_cancelled_before_its_message_came_counts_as_cancelled(
    attacked: Running, sent: bytes
) -> None:
    async with http2_peer(attacked.grpc_port) as peer:
        peer.call(1, INFER, [AUTH], None)
        peer.data(1, sent)
        await asyncio.sleep(0.1)
        peer.writer.write(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))

        async def counted() -> bool:
            sample = 'tritonflare_grpc_requests_total{method="ModelInfer",status="CANCELLED"}'
            return await attacked.client.metric(sample) == 1

        await until(counted)


@pytest.mark.parametrize(
    "flood",
    [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 70_000)),
        frame(DATA, 0, 1),
        frame(CONTINUATION, 0, 1),
        frame(0x77, 0, 0, b"x" * 100),
        frame(DATA, 0, 1, b"", length=1 << 23),
    ],
)
async def test_floods_of_frames_leave_others_alone(attacked: Running, flood: bytes) -> None:
    async with http2_peer(attacked.grpc_port) as peer, grpc_stubs(attacked.grpc_port) as stubs:
        peer.writer.write(flood * 20_000)
        with suppress(ConnectionError):  # the server may close the connection meanwhile
            await asyncio.wait_for(peer.writer.drain(), 5)
        assert len((await stubs.infer("good")).outputs) == 4


async def test_pings_without_end_get_goaway(attacked: Running) -> None:
    async with http2_peer(attacked.grpc_port) as peer:
        for _ in range(10):
            peer.writer.write(frame(PING, 0, 0, b"12345678") * 10)
            await asyncio.sleep(0.01)

        async def gone() -> bool:
            return peer.closed

        await until(gone)
        assert any(kind == GOAWAY for kind, *_ in peer.frames)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"x" * 300,
        b"\0" * 1000,
        b"",
        PREFACE[:10],
    ],
)
async def test_connections_of_another_protocol_are_closed(attacked: Running, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", attacked.grpc_port)
    writer.write(sent)
    try:
        await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        pass
    finally:
        writer.close()


async def test_connections_above_the_limit_do_not_cost_file_descriptors(attacked: Running) -> None:
    process = psutil.Process()
    before = process.num_fds()
    writers = []
    for _ in range(5 * STREAMS):
        _, writer = await asyncio.open_connection("127.0.0.1", attacked.grpc_port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        writers.append(writer)
    await asyncio.sleep(0.5)
    # Each connection here has an end of the client.
    assert process.num_fds() - before <= 6 * STREAMS + 10
    for writer in writers:
        writer.transport.abort()

    async def returned() -> bool:
        return process.num_fds() <= before + 2

    await until(returned)


@pytest.mark.parametrize(
    ("path", "data", "settings", "within_s"),
    [
        (INFER, GOOD, NO_WINDOW, 4),
        (STREAM, 30 * GOOD, NO_WINDOW, 4),
        (INFER, None, b"", 4),
        (WATCH, message(b""), NO_WINDOW, 1),
        (REFLECTION, None, b"", 1),
    ],
)
async def test_a_stop_ends_in_time_whatever_clients_do_not_send_or_read(
    triton: FakeTriton, path: bytes, data: bytes | None, settings: bytes, within_s: float
) -> None:
    given = settings_for(triton, grpc_port=0, drain_timeout_s=2)
    async with running_gateway(given) as running, http2_peer(running.grpc_port, settings=settings) as peer:
        for stream in range(1, 40, 2):
            peer.call(stream, path, [AUTH], None)
            if data is not None:
                peer.data(stream, data)
        await asyncio.sleep(0.3)
        running.stop.set()
        await asyncio.wait_for(running.task, within_s)

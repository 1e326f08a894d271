"""Health and reflection."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.inference_protocol.grpc.receive import MOST_REQUESTS
from tests.support.fake_triton import FakeTriton
from tests.support.grpc_calls import Stubs, code, grpc_stubs
from tests.support.harness import Running, running_gateway, settings_for, until
from tests.support.http2 import (
    DATA,
    INITIAL_WINDOW_SIZE,
    WINDOW,
    WINDOW_UPDATE,
    Http2Peer,
    frame,
    http2_peer,
    message,
)

Request, Response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
LARGEST_WINDOW = (1 << 31) - 1
SERVING, NOT_SERVING = Response.SERVING, Response.NOT_SERVING
KNOWN = [
    "",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
]


@pytest.fixture
async def running(triton: FakeTriton) -> AsyncIterator[Running]:
    async with running_gateway(settings_for(triton, grpc_port=0)) as served:
        yield served


@pytest.fixture
async def stubs(running: Running) -> AsyncIterator[Stubs]:
    async with grpc_stubs(running.grpc_port) as opened:
        yield opened


async def next_status(watcher: Any) -> int:
    return int((await asyncio.wait_for(watcher.read(), 10)).status)


@pytest.mark.parametrize("service", KNOWN)
async def test_known_services_are_serving_without_a_token(stubs: Stubs, service: str) -> None:
    assert (await stubs.health.Check(Request(service=service))).status == SERVING


async def test_liveness_is_served_while_the_gateway_is_not_ready(triton: FakeTriton) -> None:
    await triton.disappear()
    async with (
        running_gateway(settings_for(triton, grpc_port=0), wait_ready=False) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        assert (await stubs.health.Check(Request(service="livez"))).status == SERVING
        assert (await stubs.health.Check(Request())).status == Response.NOT_SERVING


async def test_an_unknown_service_is_not_found_and_watched_as_unknown(stubs: Stubs) -> None:
    assert await code(stubs.health.Check(Request(service="x" * 10_000))) is grpc.StatusCode.NOT_FOUND
    watcher = stubs.health.Watch(Request(service="nothing"))
    assert await next_status(watcher) == Response.SERVICE_UNKNOWN
    watcher.cancel()


async def test_watchers_see_changes_though_another_one_leaves_and_another_one_does_not_read(
    running: Running, stubs: Stubs, triton: FakeTriton
) -> None:
    no_window = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)
    async with http2_peer(running.grpc_port, settings=no_window, reads=False) as deaf:
        deaf.call(1, b"/grpc.health.v1.Health/Watch", [], message(b""))
        stays, leaves = (stubs.health.Watch(Request()) for _ in range(2))
        assert [await next_status(watcher) for watcher in (stays, leaves)] == [SERVING, SERVING]
        leaves.cancel()
        await triton.disappear()
        assert await next_status(stays) == NOT_SERVING
        assert (await stubs.health.Check(Request())).status == NOT_SERVING
        await triton.appear()
        assert await next_status(stays) == SERVING
        stays.cancel()


async def test_a_drain_is_reported_before_the_port_closes(triton: FakeTriton) -> None:
    settings = settings_for(triton, grpc_port=0, shutdown_delay_s=1)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        watcher = stubs.health.Watch(Request())
        assert await next_status(watcher) == SERVING
        running.stop.set()
        assert await next_status(watcher) == NOT_SERVING
        assert (await stubs.infer("a")).outputs


async def test_reflection_lists_and_describes_the_services(stubs: Stubs) -> None:
    Ask = reflection_pb2.ServerReflectionRequest
    stream = reflection_pb2_grpc.ServerReflectionStub(stubs.channel).ServerReflectionInfo()
    await stream.write(Ask(list_services=""))
    listed = (await stream.read()).list_services_response.service
    assert sorted(service.name for service in listed) == sorted(KNOWN[1:])
    await stream.write(Ask(file_containing_symbol="inference.GRPCInferenceService"))
    assert (await stream.read()).file_descriptor_response.file_descriptor_proto
    await stream.write(Ask(file_containing_symbol="no.such.Service"))
    assert (await stream.read()).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF


async def reflection_status(peer: Http2Peer, body: bytes, *, end: bool) -> int | None:
    """Send messages of reflection; return the status of the call."""
    peer.writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - WINDOW)))
    peer.call(1, b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [], None)
    await peer.send(1, body, end=end)

    async def ended() -> bool:
        return peer.ended(1)

    await until(ended)
    return peer.status(1)


@pytest.mark.parametrize("start", [b"", message(b"x", length=1 << 20)])
async def test_reflection_waits_for_each_message_as_long_as_a_transfer_may_take(
    triton: FakeTriton, start: bytes
) -> None:
    answered = message(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    async with running_gateway(settings_for(triton, grpc_port=0, transfer_timeout_s=1)) as running:
        for first in (b"", answered):
            async with http2_peer(running.grpc_port) as peer:
                status = await reflection_status(peer, first + start, end=False)
            assert status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


@pytest.mark.parametrize(
    ("count", "status"),
    [(MOST_REQUESTS, grpc.StatusCode.OK), (2000, grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
async def test_a_stream_of_reflection_has_a_bound_of_requests(
    running: Running, count: int, status: grpc.StatusCode
) -> None:
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")
    window = struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
    async with http2_peer(running.grpc_port, settings=window) as peer:
        body = count * message(asked.SerializeToString())
        assert await reflection_status(peer, body, end=True) == status.value[0]
        received = sum(len(payload) for kind, _, _, payload in peer.frames if kind == DATA)
    assert received < 6 << 20

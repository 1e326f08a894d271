"""What is written down of a call: access log, metrics, traces."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from gateway.telemetry.access_log import FLUSH_S
from tests.support.fake_triton import SST2, FakeTriton
from tests.support.grpc_calls import AUTHORIZED, SERVICE, STREAM, Stubs, failure, grpc_stubs, infer_request
from tests.support.harness import access_lines, running_gateway, settings_for, until
from tests.support.http2 import INITIAL_WINDOW_SIZE, http2_peer, message
from tests.support.otlp import collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
INFER_ROUTE = "gRPC /inference.GRPCInferenceService/ModelInfer"


async def calls_of_each_kind(stubs: Stubs) -> None:
    """Make one that succeeds, one that fails, one without a token, one on a stream, and one for operators."""
    await stubs.infer("a secret text")
    await failure(stubs.infer("a", model="nothing"))
    await failure(stubs.inference.ModelInfer(infer_request("a")))
    stream = stubs.inference.ModelStreamInfer(metadata=AUTHORIZED)
    await stream.write(infer_request("a"))
    await stream.read()
    await stream.done_writing()
    await stream.read()
    await stubs.inference.ServerLive(service_pb2.ServerLiveRequest())


async def test_each_request_has_a_line(triton: FakeTriton, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_for(triton, grpc_port=0, log_client_address=True)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        await calls_of_each_kind(stubs)
        lines = await access_lines(capsys)
    assert [line.partition(" ms=")[0] for line in lines] == [
        f"{INFER_ROUTE} status=200 code=0",
        f"{INFER_ROUTE} status=400 code=5007",
        f"{INFER_ROUTE} status=400 code=9106",
        f"gRPC {STREAM.decode()} status=200 code=0",
    ]
    assert [line.rpartition("grpc=")[2] for line in lines] == ["OK", "NOT_FOUND", "UNAUTHENTICATED", "OK"]
    assert all(" client=127.0.0.1 " in line for line in lines)
    assert "secret" not in "".join(lines)


async def test_lines_in_json(triton: FakeTriton, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_for(triton, grpc_port=0, log_format="json")
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        await calls_of_each_kind(stubs)
        await asyncio.sleep(2 * FLUSH_S)
        lines = [
            json.loads(line) for line in capsys.readouterr().err.splitlines() if "tritonflare.access" in line
        ]
    assert [(line["method"], line["grpc_status"]) for line in lines] == [
        ("gRPC", "OK"),
        ("gRPC", "NOT_FOUND"),
        ("gRPC", "UNAUTHENTICATED"),
        ("gRPC", "OK"),
    ]
    assert lines[0]["model"] == SST2


async def test_requests_are_counted(triton: FakeTriton) -> None:
    async with (
        running_gateway(settings_for(triton, grpc_port=0)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        await calls_of_each_kind(stubs)
        sample = 'tritonflare_grpc_requests_total{method="%s",status="%s"}'
        for method, status in (
            ("ModelInfer", "OK"),
            ("ModelInfer", "NOT_FOUND"),
            ("ModelInfer", "UNAUTHENTICATED"),
            ("ModelStreamInfer", "OK"),
            ("ServerLive", "OK"),
        ):
            assert await running.client.metric(sample % (method, status)) == 1
        page = (await running.client.get("/metrics")).body.decode()
    assert "nothing" not in page


async def test_unknown_methods_do_not_make_labels(triton: FakeTriton) -> None:
    async with (
        running_gateway(settings_for(triton, grpc_port=0)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        for number in range(5):
            call: Any = stubs.channel.unary_unary(f"/made.up.Service/Method{number}")
            assert (await failure(call(b""))).code() is grpc.StatusCode.UNIMPLEMENTED
        assert "Method1" not in (await running.client.get("/metrics")).body.decode()


async def test_a_call_is_part_of_the_trace_of_its_client(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as collector:
        settings = settings_for(triton, grpc_port=0, otlp_endpoint=collector.endpoint, trace_share=0.0)
        async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
            traced = (*AUTHORIZED, ("traceparent", f"00-{TRACE}-{PARENT}-01"))
            await stubs.inference.ModelInfer(infer_request("a"), metadata=traced)
            await failure(stubs.inference.ModelInfer(infer_request("a", model="nothing"), metadata=traced))
            await failure(stubs.inference.ModelInfer(infer_request("a"), metadata=traced[1:]))
            await stubs.infer("not traced")
        spans = collector.of(TRACE)
    servers = [span for span in spans if span.parent == PARENT]
    assert sorted(span.attributes["rpc.grpc.status_code"] for span in servers) == [0, 5, 16]
    assert {(span.attributes["rpc.service"], span.attributes["rpc.method"]) for span in servers} == {
        ("inference.GRPCInferenceService", "ModelInfer")
    }
    assert len(spans) > len(servers), "the call to Triton has a span of its own"
    assert {span.trace for span in collector.spans} == {TRACE}


async def test_refused_calls_of_health_are_neither_counted_nor_logged(
    triton: FakeTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(triton, grpc_port=0, grpc_max_streams=8)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        watcher = stubs.health.Watch(health_pb2.HealthCheckRequest())
        await watcher.read()
        error = await failure(stubs.health.Watch(health_pb2.HealthCheckRequest()).read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "Watch" not in (await running.client.get("/metrics")).body.decode()
        assert not [line for line in await access_lines(capsys) if "Health" in line]
        watcher.cancel()


@pytest.mark.parametrize("reads", [True, False])
async def test_a_probe_that_ends_too_late_is_counted_with_the_status_that_it_gets(
    triton: FakeTriton, reads: bool
) -> None:
    """One does not send its message, the other does not read the response."""
    settings = settings_for(triton, grpc_port=0, transfer_timeout_s=1)
    window = struct.pack(">HI", INITIAL_WINDOW_SIZE, 70_000 if reads else 0)
    async with (
        running_gateway(settings) as running,
        http2_peer(running.grpc_port, settings=window) as peer,
    ):
        peer.call(1, f"{SERVICE}/ServerLive".encode(), [], None if reads else message(b""))

        async def counted() -> bool:
            sample = 'tritonflare_grpc_requests_total{method="ServerLive",status="%s"}'
            assert await running.client.metric(sample % "CANCELLED") == 0
            assert await running.client.metric(sample % "OK") == 0
            return await running.client.metric(sample % "DEADLINE_EXCEEDED") == 1

        await until(counted)

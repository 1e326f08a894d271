"""gRPC calls through the example files for nginx and Caddy, run as they are before a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import TOKEN, Running, access_lines, running_gateway, settings_for
from tests.support.proxies import running_example

AUTHORIZED = (("authorization", f"Bearer {TOKEN}"),)
ROUTE = "/inference.GRPCInferenceService"


@dataclass
class Proxied:
    """A gateway, and channels to it and to the proxy in front of it."""

    running: Running
    direct: grpc.aio.Channel
    proxied: grpc.aio.Channel


@pytest.fixture(params=["nginx", "caddy"])
async def proxied(
    triton: FakeTriton, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Proxied]:
    settings = settings_for(
        triton, grpc_port=0, log_client_address=True, trusted_proxies="127.0.0.1", request_timeout_s=1.0
    )
    async with running_gateway(settings) as running:
        port = running.grpc_port
        with running_example(request.param, [running.client.port], tmp_path, grpc=[port]) as (https, _):
            credentials = grpc.ssl_channel_credentials((tmp_path / "authority.pem").read_bytes())
            options = [("grpc.ssl_target_name_override", "localhost")]
            async with (
                grpc.aio.insecure_channel(f"127.0.0.1:{port}") as direct,
                grpc.aio.secure_channel(f"127.0.0.1:{https}", credentials, options) as channel,
            ):
                yield Proxied(running, direct, channel)


def stub(channel: grpc.aio.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def question(text: bytes = b"a") -> Any:
    request = service_pb2.ModelInferRequest(model_name=SST2, id=text[:8].decode())
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[1]).contents.bytes_contents.append(text)
    return request


async def status(call: Any) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_a_call_over_tls_is_answered_as_without_a_proxy(proxied: Proxied) -> None:
    direct, answer = [
        await stub(channel).ModelInfer(question(), metadata=AUTHORIZED)
        for channel in (proxied.direct, proxied.proxied)
    ]
    assert answer == direct
    assert len(answer.raw_output_contents) == 4


async def test_errors_keep_their_status_message_and_trailing_metadata(proxied: Proxied) -> None:
    refused = [await status(stub(one).ModelInfer(question())) for one in (proxied.direct, proxied.proxied)]
    assert refused[0] == refused[1]
    assert refused[0][0] is grpc.StatusCode.UNAUTHENTICATED
    unknown = service_pb2.ModelMetadataRequest(name="no-such-model")
    code, _ = await status(stub(proxied.proxied).ModelMetadata(unknown, metadata=AUTHORIZED))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_each_request_of_a_stream_is_answered_before_the_next_is_sent(proxied: Proxied) -> None:
    stream = stub(proxied.proxied).ModelStreamInfer(metadata=AUTHORIZED)
    for text in (b"1", b"2", b"3"):
        await stream.write(question(text))
        answer = await stream.read()
        assert (answer.error_message, answer.infer_response.id) == ("", text.decode())
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_a_message_of_half_a_megabyte_passes(proxied: Proxied) -> None:
    answer = await stub(proxied.proxied).ModelInfer(question(b"a " * 256 * 1024), metadata=AUTHORIZED)
    assert len(answer.raw_output_contents) == 4


async def test_the_logged_address_is_that_of_the_proxys_client(
    proxied: Proxied, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = (*AUTHORIZED, ("x-forwarded-for", "203.0.113.9"))
    await stub(proxied.proxied).ModelInfer(question(), metadata=forged)
    (line,) = await access_lines(capsys)
    assert f"gRPC {ROUTE}/ModelInfer" in line
    assert "client=127.0.0.1" in line


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/metrics",
    ],
)
async def test_only_inference_is_reachable_from_outside(proxied: Proxied, method: str) -> None:
    call: Any = proxied.proxied.unary_unary(method)
    code, _ = await status(call(b"", metadata=AUTHORIZED, timeout=5))
    assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


async def test_without_a_gateway_a_call_is_unavailable(proxied: Proxied) -> None:
    proxied.running.stop.set()
    await proxied.running.task
    code, _ = await status(stub(proxied.proxied).ModelInfer(question(), metadata=AUTHORIZED, timeout=5))
    assert code is grpc.StatusCode.UNAVAILABLE

"""Calls to the gateway's gRPC port."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.fake_triton import SST2
from tests.support.harness import TOKEN

AUTHORIZED = (("authorization", f"Bearer {TOKEN}"),)
SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer".encode()
STREAM = f"{SERVICE}/ModelStreamInfer".encode()


def elements(*texts: str | bytes) -> bytes:
    """Return the raw contents of a BYTES tensor."""
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def split(raw: bytes) -> list[bytes]:
    """Return the elements of the raw contents of a BYTES tensor."""
    found, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def infer_request(*texts: str | bytes, model: str = SST2, outputs: Sequence[str] = (), **changes: Any) -> Any:
    """Return a ModelInferRequest with raw contents; ``changes`` replace fields of the input tensor."""
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [len(texts)]} | changes
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(**tensor)
    request.raw_input_contents.append(elements(*texts))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def outputs_of(response: Any) -> dict[str, Any]:
    """Return the values of a response by output: tuples for numbers, lists of bytes for BYTES."""
    found: dict[str, Any] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        code = {"FP32": "f", "INT32": "i"}.get(output.datatype)
        found[output.name] = struct.unpack(f"<{len(raw) // 4}{code}", raw) if code else split(raw)
    return found


@dataclass
class Stubs:
    """The stubs of one channel."""

    channel: grpc.aio.Channel
    inference: Any
    health: Any

    async def infer(self, *texts: str | bytes, timeout_s: float = 10, **request: Any) -> Any:
        """Call ModelInfer with the token."""
        message = infer_request(*texts, **request)
        return await self.inference.ModelInfer(message, metadata=AUTHORIZED, timeout=timeout_s)


@asynccontextmanager
async def grpc_stubs(
    port: int, credentials: grpc.ChannelCredentials | None = None, host: str = "localhost"
) -> AsyncIterator[Stubs]:
    """Open a channel with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    target = f"{host}:{port}"
    channel = (
        grpc.aio.insecure_channel(target, options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options)
    )
    async with channel:
        yield Stubs(
            channel,
            service_pb2_grpc.GRPCInferenceServiceStub(channel),
            health_pb2_grpc.HealthStub(channel),
        )


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Return the error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 15)
    return caught.value


async def code(call: Any) -> grpc.StatusCode:
    """Return the status code of a call that must fail."""
    return (await failure(call)).code()


def retry_delay_s(error: grpc.aio.AioRpcError) -> float | None:
    """Return the pause of ``google.rpc.RetryInfo``; None without one."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            info = RetryInfo()
            assert Status.FromString(value).details[0].Unpack(info)
            return float(info.retry_delay.ToMilliseconds()) / 1000
    return None

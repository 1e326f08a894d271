"""A stand-in for the gateway's gRPC port, which can lie, stall and refuse."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.fake_triton import read_texts

LABELS = ("NEGATIVE", "POSITIVE")


class GrpcStandIn(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers every text alike, from the moment ``lie_after`` calls were answered a little differently.

    ``metadata`` and ``requests`` are what the calls carried, in their order.
    """

    def __init__(self) -> None:
        self.port = 0
        self.answers = 0
        self.lie_after = float("inf")
        self.stall_after = float("inf")
        self.stall_s = 1.0
        self.refuse_after = float("inf")
        self.labels = json.dumps(LABELS)
        self.remembers = True
        self.metadata: list[dict[str, str]] = []
        self.requests: list[Any] = []
        self._stalled_until = 0.0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its HTTP address, where nothing listens."""
        return "http://127.0.0.1:9"

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        answer = service_pb2.ModelConfigResponse()
        answer.config.name = request.name
        answer.config.parameters["labels"].string_value = self.labels
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        if self.remembers:
            self.metadata.append(dict(context.invocation_metadata()))
            self.requests.append(request)
        self.answers += 1
        negative = 0.25 if self.answers <= self.lie_after else 0.26
        if self.answers > self.refuse_after:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests")
        await self._stall()
        return _answer(request, negative)

    async def _stall(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.answers == self.stall_after:
            self._stalled_until = now + self.stall_s
        if self._stalled_until > now:
            await asyncio.sleep(self._stalled_until - now)


def _answer(request: Any, negative: float) -> Any:
    texts = len(read_texts(request))
    answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
    answer.outputs.add(name="probabilities", datatype="FP32", shape=[texts, 2])
    answer.outputs.add(name="token_count", datatype="INT32", shape=[texts, 1])
    answer.raw_output_contents.append(struct.pack("<2f", negative, 1 - negative) * texts)
    answer.raw_output_contents.append(struct.pack("<i", 3) * texts)
    return answer


@contextmanager
def grpc_stand_in(credentials: grpc.ServerCredentials | None = None) -> Iterator[GrpcStandIn]:
    """The stand-in on a free loopback port, in a thread of its own; with TLS if there are ``credentials``."""
    servicer = GrpcStandIn()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gRPC stand-in")
    thread.start()

    async def begin() -> grpc.aio.Server:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        if credentials is None:
            servicer.port = server.add_insecure_port("127.0.0.1:0")
        else:
            servicer.port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield servicer
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

"""The front: what counts as open, and what becomes of defects."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest

from gateway.domain.errors import MissingCredentials, TritonflareError
from gateway.inference_protocol.grpc import front as front_module
from gateway.inference_protocol.grpc.front import Front
from gateway.inference_protocol.grpc.limits import GrpcLimits

INFER = "/inference.GRPCInferenceService/ModelInfer"
PATHS = [INFER, "/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Check"]


class Context:
    """A call whose end is the end of its handler."""

    def __init__(self) -> None:
        self.status: tuple[grpc.StatusCode, str] | None = None

    def peer(self) -> str:
        return "ipv4:192.0.2.1:443"

    def time_remaining(self) -> None:
        return None

    def add_done_callback(self, callback: Any) -> None:
        pass

    async def abort(self, code: grpc.StatusCode, details: str, metadata: Any) -> None:
        self.status = code, details
        raise grpc.aio.AbortError


def made(monkeypatch: pytest.MonkeyPatch, refusal: TritonflareError | None, address: Any = None) -> Front:
    def authenticate(*_: object) -> str:
        if refusal is not None:
            raise refusal
        return "account"

    monkeypatch.setattr(front_module, "authenticate", authenticate)
    given: Any = MagicMock()
    front = Front(given, given, given, MagicMock(), address, GrpcLimits(1000, 8, 8, 1.0, 75.0))
    method = SimpleNamespace(
        request_streaming=False, unary_unary=None, request_deserializer=None, response_serializer=None
    )
    for path in PATHS:
        service, _, name = path[1:].rpartition("/")
        front.add_registered_method_handlers(service, {name: method})
    return front


def called(front: Front, path: str, context: Context) -> Any:
    details: Any = SimpleNamespace(method=path, invocation_metadata=())
    handler = front.service(details)
    assert handler is not None
    return (handler.stream_stream or handler.stream_unary)(None, context)


async def test_a_refused_call_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    front, context = made(monkeypatch, MissingCredentials()), Context()
    with pytest.raises(grpc.aio.AbortError):
        await called(front, INFER, context)
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.UNAUTHENTICATED
    assert front.calls == 0


async def test_an_admitted_call_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    front, context = made(monkeypatch, None), Context()
    context.read = asyncio.Event().wait  # type: ignore[attr-defined]
    task = asyncio.ensure_future(called(front, INFER, context))
    await asyncio.sleep(0.01)
    assert front.calls == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("refusal", [None, MissingCredentials()])
async def test_a_defect_is_logged_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
    refusal: TritonflareError | None,
) -> None:
    address: Any = MagicMock()
    address.of_request.side_effect = LookupError("a secret")
    front, context = made(monkeypatch, refusal, address), Context()
    with pytest.raises(grpc.aio.AbortError):
        await called(front, path, context)
    assert context.status == (grpc.StatusCode.INTERNAL, "An unknown error has occurred.")
    (record,) = caplog.records
    assert record.getMessage().endswith("-TFL failed")
    assert record.exc_info


async def test_errors_of_grpc_are_left_to_grpc(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address: Any = MagicMock()
    address.of_request.side_effect = grpc.aio.InternalError
    front, context = made(monkeypatch, None, address), Context()
    with pytest.raises(grpc.aio.InternalError):
        await called(front, INFER, context)
    assert caplog.records == []

"""The gRPC status of every error: the one place where the error tree meets gRPC's codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc_status import rpc_status

from gateway.domain import errors
from gateway.domain.errors import TritonflareError
from gateway.inference_protocol.sentences import describe

Metadata = tuple[tuple[str, str | bytes], ...]

_CODES: dict[type[TritonflareError], StatusCode] = {
    errors.MissingCredentials: StatusCode.UNAUTHENTICATED,
    errors.MalformedCredentials: StatusCode.UNAUTHENTICATED,
    errors.UnknownToken: StatusCode.UNAUTHENTICATED,
    errors.ForeignAccount: StatusCode.PERMISSION_DENIED,
    errors.BadInput: StatusCode.INVALID_ARGUMENT,
    errors.QueryTooLong: StatusCode.INVALID_ARGUMENT,
    errors.MalformedBody: StatusCode.INVALID_ARGUMENT,
    errors.NoSuchModel: StatusCode.NOT_FOUND,
    errors.NoSuchVersion: StatusCode.NOT_FOUND,
    # As gRPC itself answers for a message above its limit.
    errors.BodyTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.BatchQueueFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.BackendUnavailable: StatusCode.UNAVAILABLE,
    errors.BatchStoreUnavailable: StatusCode.UNAVAILABLE,
    errors.ModelUnavailable: StatusCode.UNAVAILABLE,
    errors.ShuttingDown: StatusCode.UNAVAILABLE,
    errors.BackendFailed: StatusCode.INTERNAL,
    errors.UnknownError: StatusCode.INTERNAL,
    errors.NoSuchService: StatusCode.NOT_FOUND,
    errors.NoSuchLog: StatusCode.NOT_FOUND,
    errors.MethodNotImplemented: StatusCode.UNIMPLEMENTED,
    errors.ClientDisconnected: StatusCode.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class RpcStatus:
    """The status that ends a call."""

    code: StatusCode
    message: str
    trailing_metadata: Metadata = ()


def code_of(error: TritonflareError) -> StatusCode:
    """Return the status code of an error."""
    return _CODES.get(type(error), StatusCode.INTERNAL)


def status_of(error: TritonflareError) -> RpcStatus:
    """Return the status of an error.

    One that is worth repeating after a pause carries the pause: as ``google.rpc.RetryInfo`` in the status
    details, and as ``grpc-retry-pushback-ms``, which gRPC's own retries obey (gRFC A6).
    """
    code, message = code_of(error), describe(error, "metadata")
    if error.retry_after_s is None:
        return RpcStatus(code, message)
    pause = Duration()
    pause.FromMilliseconds(math.ceil(1000 * error.retry_after_s))
    details = AnyMessage()
    details.Pack(RetryInfo(retry_delay=pause))
    status: grpc.Status = rpc_status.to_status(Status(code=code.value[0], message=message, details=[details]))
    pushback = ("grpc-retry-pushback-ms", str(pause.ToMilliseconds()))
    return RpcStatus(code, message, (*(status.trailing_metadata or ()), pushback))

"""Every error has a status of gRPC, and some a pause."""

from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from gateway.domain import errors
from gateway.domain.errors import TritonflareError
from gateway.inference_protocol.grpc import statuses
from gateway.inference_protocol.grpc.statuses import code_of, status_of

HTTP_ONLY = {
    errors.NoRoute,
    errors.MethodNotSupported,
    errors.MalformedRequest,
    errors.UnknownTransferCoding,
    errors.InvalidToken,
    errors.EmptyInput,
    errors.NoModelForTask,
}
"""Errors of paths, methods, heads and forms of requests that calls do not have."""
RETRIED = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


def _tree(error: type[TritonflareError]) -> set[type[TritonflareError]]:
    return {error}.union(*map(_tree, error.__subclasses__()))


ERRORS = _tree(TritonflareError) - {TritonflareError, errors.FrontError, errors.AiError} - HTTP_ONLY


@pytest.mark.parametrize("error", sorted(ERRORS, key=str))
def test_every_error_has_a_status(error: type[TritonflareError]) -> None:
    assert error.__module__ != errors.__name__ or error in statuses._CODES


@pytest.mark.parametrize("error", sorted(statuses._CODES, key=str))
def test_what_may_succeed_later_has_a_status_that_clients_retry(error: type[TritonflareError]) -> None:
    assert (statuses._CODES[error].name in RETRIED) == error.retryable or error is errors.BodyTooLarge


def test_an_error_without_a_status_is_internal() -> None:
    assert code_of(errors.NoRoute()) is StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("error", "milliseconds"),
    [(errors.Overloaded(), 500), (errors.BackendUnavailable(), 1000), (errors.RateLimited(1.2345), 1235)],
)
def test_a_pause_is_in_the_details_and_in_the_pushback(error: TritonflareError, milliseconds: int) -> None:
    status = status_of(error)
    metadata = dict(status.trailing_metadata)
    assert metadata["grpc-retry-pushback-ms"] == str(milliseconds)
    details = Status.FromString(metadata["grpc-status-details-bin"])
    assert (details.code, details.message) == (status.code.value[0], status.message)
    info = RetryInfo()
    assert details.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == milliseconds


@pytest.mark.parametrize("error", [errors.BackendFailed(), errors.UnknownToken(), errors.BodyTooLarge(1)])
def test_without_a_pause_there_are_no_details(error: TritonflareError) -> None:
    assert status_of(error).trailing_metadata == ()

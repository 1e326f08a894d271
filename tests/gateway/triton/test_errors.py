"""The tree of errors as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.domain import errors
from gateway.domain.errors import AiError, FrontError, TritonflareError


def leaves(root: type[TritonflareError]) -> Iterator[type[TritonflareError]]:
    for child in root.__subclasses__():
        if child not in (AiError, FrontError):
            yield child
        yield from leaves(child)


def test_every_error_has_a_status_and_a_code_of_its_own() -> None:
    for error in leaves(TritonflareError):
        assert error.code > 0, error
        assert 400 <= error.status < 600, error


def test_the_docstring_names_every_class() -> None:
    assert errors.__doc__
    for error in leaves(TritonflareError):
        assert error.__name__ in errors.__doc__, error


def test_what_clients_retry_by_status_is_what_is_retryable() -> None:
    # Official SDKs retry 408, 409, 429 and 5xx; a 5xx that is not retryable must say so in a header.
    for error in leaves(TritonflareError):
        retried = error.status in (408, 409, 429) or error.status >= 500
        assert not (error.retryable and not retried), error
        assert not (retried and not error.retryable and error.status < 500), error
        assert error.retry_after_s is None or error.retryable, error

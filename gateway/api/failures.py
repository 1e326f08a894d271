"""Failures of protocols that follow the usual HTTP statuses, which the Workers AI API does not everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from gateway.api.envelope import retry_headers
from gateway.domain.errors import (
    MalformedCredentials,
    MethodNotImplemented,
    MethodNotSupported,
    MissingCredentials,
    NoRoute,
    NoSuchModel,
    NoSuchVersion,
    TritonflareError,
)
from gateway.server.message import Header, Response

_STATUSES: dict[type[TritonflareError], int] = {
    MissingCredentials: 401,
    MalformedCredentials: 401,
    NoRoute: 404,
    NoSuchModel: 404,
    NoSuchVersion: 404,
    # As from servers without the extension; a 5xx would raise alarms and be repeated.
    MethodNotImplemented: 404,
}
"""Where such protocols differ from the Workers AI API."""

_encode = msgspec.json.Encoder().encode


def render_failure(
    error: TritonflareError,
    body: object,
    ai_request_id: str | None,
    statuses: Mapping[type[TritonflareError], int] = MappingProxyType({}),
) -> Response:
    """Render an error.

    Args:
        error: decides status and headers.
        body: the error in the protocol's form, as a JSON value.
        ai_request_id: if there is one.
        statuses: those of the protocol where they differ from the usual ones.
    """
    usual = _STATUSES.get(type(error), error.status)
    status = statuses.get(type(error), usual)
    headers: list[Header] = []
    if ai_request_id is not None:
        headers.append((b"cf-ai-req-id", ai_request_id.encode()))
    if isinstance(error, MethodNotSupported):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if type(error) not in _STATUSES:
        headers += retry_headers(error)
    return Response(status, _encode(body), headers=headers, code=error.code)

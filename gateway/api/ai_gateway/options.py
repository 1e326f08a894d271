"""Options of a call: AI Gateway's, as headers and as ``options.gateway`` of a body, and ``long``.

The binding sends them in the body. `gateway.api.long_texts` reads ``long``.

Other headers that begin with ``cf-aig-`` concern what this server does not have (logs, costs, retries). They
are ignored, whatever they hold. ``cf-aig-cache-key`` is ignored because the cache holds scores of texts, not
whole answers: under a key of the caller's choice, a text would get the scores of another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.api import long_texts
from gateway.api.context import RequestContext
from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput
from gateway.domain.options import NO_OPTIONS, CallOptions, LongTexts
from gateway.domain.requests import Call, PollCall
from gateway.domain.validate import integer, types_of
from gateway.server.message import HttpRequest

_SKIP_CACHE = "cf-aig-skip-cache"
_CACHE_TTL = "cf-aig-cache-ttl"
REQUEST_TIMEOUT = "cf-aig-request-timeout"
_FORMER_NAMES = {"cf-skip-cache": _SKIP_CACHE, "cf-cache-ttl": _CACHE_TTL}
_BY_BYTES = {
    name.encode(): _FORMER_NAMES.get(name, name)
    for name in (_SKIP_CACHE, _CACHE_TTL, REQUEST_TIMEOUT, *_FORMER_NAMES)
}
_MOST = 999_999_999


def read_request_options(request: HttpRequest) -> CallOptions:
    """Return the options in the headers and the query of a request.

    Of a header that is repeated, the last counts.

    Raises:
        BadInput: one is malformed.
    """
    given = {
        _BY_BYTES[name]: value.decode("latin-1") for name, value in request.all_headers if name in _BY_BYTES
    }
    options = options_of(given) if given else NO_OPTIONS
    asked = long_texts.asked_in_query(request) if request.query_string else None
    return options if asked is None else replace(options, long_texts=asked)


def options_of(headers: Mapping[str, str]) -> CallOptions:
    """Return the options among headers, whose names are in lower case.

    Raises:
        BadInput: one is malformed.
    """
    timeout_ms = _number(headers, REQUEST_TIMEOUT, 1)
    return CallOptions(
        skip_cache=_flag(headers, _SKIP_CACHE),
        cache_ttl_s=_number(headers, _CACHE_TTL, 0),
        patience_s=None if timeout_ms is None else timeout_ms / 1000,
    )


def with_options(
    asked: tuple[Model, Call] | PollCall, payload: object, context: RequestContext, default: LongTexts
) -> tuple[Model, Call] | PollCall:
    """Return what was asked with its options: those of the body ``payload``, then those of the request.

    Args:
        asked: what was asked.
        payload: the body.
        context: the request.
        default: what becomes of long texts if the options do not say.

    Raises:
        BadInput: one in the body is of the wrong type, or below its minimum; or the model has no windows.
    """
    options = _body_options(payload).over(context.options)
    if isinstance(asked, PollCall):
        return asked
    model, call = asked
    chosen = long_texts.choose(model, options.long_texts, default)
    return model, replace(call, options=replace(options, long_texts=chosen))


def _body_options(payload: object) -> CallOptions:
    options = payload.get("options") if isinstance(payload, dict) else None
    asked = long_texts.asked_in_body(options)
    gateway = options.get("gateway") if isinstance(options, dict) else None
    if not isinstance(gateway, dict):
        return NO_OPTIONS if asked is None else CallOptions(long_texts=asked)
    skip = gateway.get("skipCache")
    if skip is not None and not isinstance(skip, bool):
        raise BadInput(
            f"Error: Type mismatch of '/options/gateway/skipCache', 'boolean' not in {types_of(skip)}"
        )
    timeout_ms = _integer(gateway, "requestTimeoutMs", 1)
    patience_s = None if timeout_ms is None else timeout_ms / 1000
    return CallOptions(skip, _integer(gateway, "cacheTtl", 0), patience_s, asked)


def _integer(gateway: Mapping[str, object], key: str, least: int) -> int | None:
    value = gateway.get(key)
    return None if value is None else min(integer(value, f"/options/gateway/{key}", least), _MOST)


def _flag(headers: Mapping[str, str], name: str) -> bool | None:
    value = headers.get(name)
    if value is None:
        return None
    if value.lower() not in ("true", "false"):
        raise BadInput(f"Error: header '{name}' must be 'true' or 'false'")
    return value.lower() == "true"


def _number(headers: Mapping[str, str], name: str, least: int) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(_MOST)) and int(value) >= least):
        raise BadInput(f"Error: header '{name}' must be an integer from {least} to {_MOST}")
    return int(value)

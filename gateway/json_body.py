"""JSON bodies of requests, decoded into the structures that a protocol describes.

The rules are those of `gateway.domain.validate.parse_json`: a byte order mark is skipped, a lone surrogate
becomes U+FFFD, ``NaN`` and ``Infinity`` are not JSON, and of a key that comes twice the last one counts.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import TypeVar

import msgspec

from gateway.domain.errors import BadInput, MalformedBody

_Structure = TypeVar("_Structure")

_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""An escaped pair of surrogates, or an escaped surrogate alone, behind any escaped backslashes."""


def decode_json(body: bytes, structure: type[_Structure]) -> _Structure:
    """Decode a body; keys that ``structure`` does not have are ignored.

    Raises:
        MalformedBody: empty, not JSON, not UTF-8, or nested too deep.
        BadInput: JSON of another structure.
    """
    try:
        return _decode(body, structure)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # What msgspec refuses and JavaScript's JSON.stringify may write.
        body = _SURROGATE.sub(_keep_pair, body.removeprefix(BOM_UTF8))
    if not body.strip():
        raise MalformedBody("the body is empty")
    try:
        return _decode(body, structure)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MalformedBody("the body is not valid JSON") from None


def _decode(body: bytes, structure: type[_Structure]) -> _Structure:
    try:
        return msgspec.json.decode(body, type=structure)
    except msgspec.ValidationError as exc:
        raise BadInput(str(exc)) from None  # types and places, nothing of the body
    except RecursionError:
        raise MalformedBody("the body is nested too deep") from None


def _keep_pair(found: re.Match[bytes]) -> bytes:
    return found[1] + (found[2] if len(found[2]) > len(rb"\ud800") else rb"\ufffd")

"""From body bytes to values, with the error messages of the public API.

The messages for bad input are those of ``@cloudflare/cabidela`` 0.2, the validator of the live API.
Where JavaScript and Python parse JSON differently, this follows JavaScript.
"""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NoReturn, cast

import msgspec

from gateway.domain.errors import BadInput, MalformedBody

ResultShape = Literal["array", "items"]
_SHAPES = ("array", "items")

LARGE_BYTES = 1 << 20
"""A body above this size may have no more than `MOST_VALUES` values."""
MOST_VALUES = 250_000
"""A batch of 10,000 texts has an eighth of that. To decode as many blocks the event loop for about 50 ms."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(body: bytes) -> object:
    """Decode a JSON body; the event loop stands still meanwhile.

    Raises:
        MalformedBody: empty, not JSON (``NaN`` and ``Infinity`` included), not UTF-8, or nested too deep; or
            larger than `LARGE_BYTES` and with more than `MOST_VALUES` values.
    """
    if len(body) > LARGE_BYTES and _has_too_many_values(body):
        raise MalformedBody(f"the body has more than {MOST_VALUES} values")
    with _without_garbage_collection():
        try:
            return cast(object, msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _parse_leniently(body)
        except RecursionError:
            raise MalformedBody("the body is nested too deep") from None


def may_ask_for_batch(body: bytes) -> bool:
    """Tell, before a body is parsed, whether `asks_for_batch` may find something in it."""
    return b"queueRequest" in body or b"\\u" in body  # any character may be escaped


def _has_too_many_values(body: bytes) -> bool:
    """Tell whether a body has more values than is allowed, without decoding it.

    Each value but the first of all follows a comma or an opening bracket. What stands in strings does not
    count, but is the larger part of most bodies; so it is cut out, unless there are few commas anyhow.
    """
    if _count_values(body) <= MOST_VALUES:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # With its keys, an object has two strings for each comma at most.
    if body.count(b'"') > 4 * MOST_VALUES:
        return True
    return _count_values(b"".join(body.split(b'"')[::2])) > MOST_VALUES


def _count_values(text: bytes) -> int:
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Put garbage collection off: decoding makes no garbage, and would take up to four times as long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parse_leniently(body: bytes) -> object:
    """Parse what JavaScript accepts and msgspec does not: a BOM, lone surrogates, any number."""
    if not body.strip():
        raise MalformedBody("the body is empty")
    try:
        # Numbers become doubles, as in JavaScript; it also avoids Python's limit on digits of an int.
        return cast(
            object,
            json.loads(body.decode("utf-8-sig"), parse_int=float, parse_constant=_reject_constant),
        )
    except ValueError:
        raise MalformedBody("the body is not valid JSON") from None
    except RecursionError:
        raise MalformedBody("the body is nested too deep") from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name)


def call_of(payload: object) -> tuple[str, object, bool]:
    """Return model, input and ``options.queueRequest`` of a request that names its model in the body.

    Raises:
        BadInput: ``model`` or ``input`` is missing, or ``model`` is not a non-empty string.
    """
    if not isinstance(payload, dict) or "model" not in payload or "input" not in payload:
        # The validator lists all that are required, not only those that are missing.
        raise BadInput("Error: required properties at '/' are 'model,input'")
    model = string(payload["model"], "/model")
    if not model:
        raise BadInput("Error: Length of '/model' must be >= 1 not met")
    return printable(model), payload["input"], asks_for_batch(payload)


def asks_for_batch(payload: object) -> bool:
    """Tell whether the body's options ask for ``queueRequest``."""
    options = payload.get("options") if isinstance(payload, dict) else None
    return isinstance(options, dict) and options.get("queueRequest") is True


def string(value: object, path: str) -> str:
    """Return ``value``, which stands at ``path`` of a request.

    Raises:
        BadInput: it is not a string.
    """
    if not isinstance(value, str):
        raise BadInput(f"Error: Type mismatch of '{path}', 'string' not in {types_of(value)}")
    return value


def integer(value: object, path: str, least: int) -> int:
    """Return ``value``, which stands at ``path`` of a request; 1.0 is an integer, as in JavaScript.

    Raises:
        BadInput: it is no integer, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_javascript_integer(value):
        raise BadInput(f"Error: Type mismatch of '{path}', 'integer' not in {types_of(value)}")
    if value < least:
        raise BadInput(f"Error: '{path}' must be >= {least}")
    return int(value)


def types_of(value: object) -> str:
    """Name the types of a value as the validator lists them."""
    return ",".join(f"'{name}'" for name in _javascript_types(value))


def _javascript_types(value: object) -> tuple[str, ...]:
    match value:
        case None:
            return ("null",)
        case bool():
            return ("boolean",)
        case int() | float():
            return ("number", "integer") if _is_javascript_integer(value) else ("number",)
        case str():
            return ("string",)
        case list():
            return ("array", "binary") if is_binary(value) else ("array",)
        case _:
            return ("object",)


def is_binary(value: object) -> bool:
    """Tell whether the validator takes a value for binary data: an array of numbers and strings alone.

    It looks for the first item that is neither number nor string and compares it with undefined, so a null
    there counts as not found; None does the same here.
    """
    if not isinstance(value, list):
        return False
    return next((item for item in value if not _is_number_or_string(item)), None) is None


def _is_number_or_string(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _is_javascript_integer(value: float) -> bool:
    """``Number.isInteger``: 1.0 is one; what overflows a double is Infinity and is not."""
    try:
        number = float(value)
    except OverflowError:
        return False
    return math.isfinite(number) and number.is_integer()


def utf8(text: str) -> bytes:
    """Encode as JavaScript's TextEncoder does: a lone surrogate becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text).encode()


def printable(text: str) -> str:
    """Return ``text`` with lone surrogates replaced by U+FFFD, so that it can be encoded."""
    return utf8(text).decode()


def result_shape(asked: str | None, default: ResultShape) -> ResultShape:
    """Choose the shape of the result: what the query asks for, else the setting.

    Raises:
        BadInput: the query asks for a shape that does not exist.
    """
    if asked is None:
        return default
    if asked not in _SHAPES:
        raise BadInput("Error: query parameter 'result_shape' must be 'array' or 'items'")
    return cast(ResultShape, asked)

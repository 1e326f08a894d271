"""From body bytes to the text to classify, in the words of the public API.

The messages of wrong input are those of ``@cloudflare/cabidela`` 0.2, the validator whose texts the
live API shows. Where JSON and Python disagree, the reading is JavaScript's.
"""

from __future__ import annotations

import json
import math
import re
from typing import Literal, NoReturn, cast

import msgspec

from gateway.domain.errors import BadInput, MalformedBody

ResultShape = Literal["array", "items"]
_SHAPES = ("array", "items")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(body: bytes) -> object:
    """Decode a JSON body.

    Raises:
        MalformedBody: empty, not JSON (``NaN`` and ``Infinity`` included), not UTF-8, or nested too deep.
    """
    try:
        return cast(object, msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_leniently(body)
    except RecursionError:
        raise MalformedBody("the body is nested too deep") from None


def _parse_leniently(body: bytes) -> object:
    """Second try for what JavaScript accepts and msgspec does not: BOM, lone surrogates, any number."""
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


def text_of(payload: object) -> str:
    """Return the ``text`` of a classification request; other keys are ignored.

    The schema is ``{"type": "object", "properties": {"text": {"type": "string", "minLength": 1}},
    "required": ["text"]}``. Whitespace alone is valid; length counts UTF-16 units, which for a minimum
    of 1 is any character at all.

    Raises:
        BadInput: with the validator's sentence.
    """
    if not isinstance(payload, dict) or "text" not in payload:
        raise BadInput("Error: required properties at '/' are 'text'")
    text = payload["text"]
    if not isinstance(text, str):
        types = ",".join(f"'{name}'" for name in _javascript_types(text))
        raise BadInput(f"Error: Type mismatch of '/text', 'string' not in {types}")
    if not text:
        raise BadInput("Error: Length of '/text' must be >= 1 not met")
    return text


def _javascript_types(value: object) -> tuple[str, ...]:
    match value:
        case None:
            return ("null",)
        case bool():
            return ("boolean",)
        case int() | float():
            return ("number", "integer") if _is_javascript_integer(value) else ("number",)
        case list():
            # The validator looks for the first item that is neither number nor string and compares it
            # with undefined, so a null there counts as not found; None does the same here.
            odd = next((item for item in value if not _is_number_or_string(item)), None)
            return ("array", "binary") if odd is None else ("array",)
        case _:
            return ("object",)


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

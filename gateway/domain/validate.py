"""From body bytes to the text to classify, with the error messages of the public API.

The messages for bad input are those of ``@cloudflare/cabidela`` 0.2, the validator of the live API.
Where JavaScript and Python parse JSON differently, this follows JavaScript.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, cast

import msgspec

from gateway.domain.errors import BadInput, MalformedBody, without_frames

ResultShape = Literal["array", "items"]
_SHAPES = ("array", "items")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TextCall:
    """A request for one text."""

    text: str | BadInput
    """Or its validation error."""


@dataclass(frozen=True, slots=True)
class BatchText:
    """One input of a batch."""

    reference: str | None
    """The caller's name for it."""
    text: str | BadInput


@dataclass(frozen=True, slots=True)
class BatchCall:
    """A request for several texts, answered at once in the shape of a finished batch."""

    items: Sequence[BatchText]


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


def text_of(payload: object) -> str:
    """Return the ``text`` of a classification request; other keys are ignored.

    The schema is ``{"type": "object", "properties": {"text": {"type": "string", "minLength": 1}},
    "required": ["text"]}``. Whitespace alone is valid; length counts UTF-16 units, which for a minimum
    of 1 is any character at all.

    Raises:
        BadInput: with the validator's message.
    """
    if not isinstance(payload, dict) or "text" not in payload:
        raise BadInput("Error: required properties at '/' are 'text'")
    text = _string(payload["text"], "/text")
    if not text:
        raise BadInput("Error: Length of '/text' must be >= 1 not met")
    return text


def call_of(payload: object) -> tuple[str, object, bool]:
    """Return model, input and ``options.queueRequest`` of a request that names its model in the body.

    Raises:
        BadInput: ``model`` or ``input`` is missing, or ``model`` is not a non-empty string.
    """
    if not isinstance(payload, dict) or "model" not in payload or "input" not in payload:
        # The validator lists all that are required, not only those that are missing.
        raise BadInput("Error: required properties at '/' are 'model,input'")
    model = _string(payload["model"], "/model")
    if not model:
        raise BadInput("Error: Length of '/model' must be >= 1 not met")
    return printable(model), payload["input"], asks_for_batch(payload)


def asks_for_batch(payload: object) -> bool:
    """Tell whether the body's options ask for ``queueRequest``."""
    options = payload.get("options") if isinstance(payload, dict) else None
    return isinstance(options, dict) and options.get("queueRequest") is True


def read_call(payload: object, max_batch_texts: int, *, queued: bool) -> TextCall | BatchCall:
    """Read the texts of a request.

    Args:
        payload: the inputs. A key ``requests`` makes it a batch, even beside a ``text``: the official
            Python SDK cannot leave ``text`` out.
        max_batch_texts: how many inputs a batch may have.
        queued: whether the caller asked for ``queueRequest``; one text is then a batch of one.

    Raises:
        BadInput: no inputs, too many, or not an array; or a poll for results. The error of a single text
            takes the place of that text, so that the number of texts is known in any case.
    """
    given = payload if isinstance(payload, dict) else {}
    if "requests" in given:
        return BatchCall([_batch_text(item) for item in _batch_inputs(given["requests"], max_batch_texts)])
    if "text" in given and queued:
        return BatchCall([_batch_text(payload)])
    if "text" not in given:
        if "request_id" in given:
            raise BadInput("Error: '/request_id' is not known, a batch is answered at once")
        if queued:
            raise BadInput("Error: required properties at '/' are 'requests'")
    return read_text(payload)


def read_text(payload: object) -> TextCall:
    """Read one text, or its validation error."""
    try:
        return TextCall(text_of(payload))
    except BadInput as exc:
        return TextCall(without_frames(exc))


def _batch_inputs(requests: object, max_batch_texts: int) -> list[object]:
    if not isinstance(requests, list):
        raise BadInput(f"Error: Type mismatch of '/requests', 'array' not in {_types(requests)}")
    if not requests:
        raise BadInput("Error: Length of '/requests' must be >= 1 not met")
    if len(requests) > max_batch_texts:
        raise BadInput(f"Error: Length of '/requests' must be <= {max_batch_texts}")
    return requests


def _batch_text(item: object) -> BatchText:
    reference = None
    try:
        reference = reference_of(item)
        return BatchText(reference, text_of(item))
    except BadInput as exc:
        return BatchText(reference, without_frames(exc))


def reference_of(item: object) -> str | None:
    """Return the ``external_reference`` of one input of a batch.

    Raises:
        BadInput: it is neither a string nor null.
    """
    reference = item.get("external_reference") if isinstance(item, dict) else None
    return None if reference is None else printable(_string(reference, "/external_reference"))


def _string(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"Error: Type mismatch of '{path}', 'string' not in {_types(value)}")
    return value


def _types(value: object) -> str:
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

"""Tensors of the Open Inference Protocol as both of its transports carry them.

Raw contents are row-major and little-endian; an element of BYTES is a 4-byte length and the bytes. Source:
KServe's "Open Inference Protocol", raw tensor contents and the binary tensor data extension.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.errors import BadInput

_LENGTH = struct.Struct("<I")
_MOST_ELEMENTS = 65_536
"""More than any request may have; splitting a megabyte of empty elements takes a quarter of a second."""
_FORMATS = {"FP32": "f", "INT32": "i"}


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Sequence[object]
    """In row-major order: bytes, or text where the transport has text. Their number is not checked."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that a request asks for."""

    name: str
    class_count: int = 0
    """With the classification extension: how many of the best classes to return; 0 for the tensor itself."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output of a response."""

    name: str
    datatype: str
    """FP32, INT32 or BYTES."""
    shape: tuple[int, ...]
    values: Sequence[float] | Sequence[bytes]
    """In row-major order; FP32 values are exact in 32 bits."""

    def raw(self) -> bytes:
        """Return the raw contents."""
        code = _FORMATS.get(self.datatype)
        if code is not None:
            return struct.pack(f"<{len(self.values)}{code}", *self.values)
        return b"".join(_LENGTH.pack(len(value)) + value for value in self.values if isinstance(value, bytes))


def to_fp32(values: Sequence[float]) -> tuple[float, ...]:
    """Round doubles to the nearest FP32 values."""
    code = f"<{len(values)}f"
    return struct.unpack(code, struct.pack(code, *values))


def bytes_elements(name: str, raw: bytes) -> list[bytes]:
    """Split the raw contents of a BYTES input into its elements.

    Raises:
        BadInput: the last element is cut off, or there are too many.
    """
    elements: list[bytes] = []
    place = 0
    while place < len(raw):
        start = place + _LENGTH.size
        if start > len(raw):
            raise _cut_off(name, len(elements))
        (length,) = _LENGTH.unpack_from(raw, place)
        place = start + length
        if place > len(raw):
            raise _cut_off(name, len(elements))
        elements.append(raw[start:place])
        if len(elements) > _MOST_ELEMENTS:
            raise BadInput(f"input '{name[:100]}' has more than {_MOST_ELEMENTS} elements")
    return elements


def _cut_off(name: str, place: int) -> BadInput:
    return BadInput(
        f"the raw contents of input '{name[:100]}' end inside element {place}; each element is its length in "
        "4 bytes, little-endian, and as many bytes"
    )

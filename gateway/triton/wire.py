"""Triton's tensors as bytes: one request message from texts, scores from one response message.

The ensemble takes ``TEXT`` BYTES ``[n, 1]``, a reranker's ``QUERY`` of the same shape as well, and answers
``logits`` FP32 ``[n, labels]`` and ``token_count`` INT32 ``[n, 1]``. Raw contents are little-endian; a BYTES
element is a 4-byte length and the bytes (KServe protocol v2, "raw tensor contents"; Triton's "binary tensor
data" extension).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import service_pb2

from gateway.domain.backend import QUERY_TOO_LONG, RawScores
from gateway.domain.inputs import ModelInput, Pair, Window

_QUERY, _TEXT, _LOGITS, _TOKEN_COUNT = "QUERY", "TEXT", "logits", "token_count"
_LENGTH = struct.Struct("<I")
_WINDOWS = "windows"
"""A request parameter; export/triton_models/windows.py describes it."""

# The stubs are generated without types, so messages are Any here and nowhere else.
Message = Any


class MalformedResponse(ValueError):
    """The response is not what the ensemble's contract promises."""


def infer_request(ensemble: str, inputs: Sequence[ModelInput]) -> Message:
    """Return a ModelInferRequest for ``n`` UTF-8 texts, some of them windows, or for ``n`` pairs."""
    request = service_pb2.ModelInferRequest(model_name=ensemble)
    request.outputs.add(name=_LOGITS)
    request.outputs.add(name=_TOKEN_COUNT)
    if any(isinstance(data, Pair) for data in inputs):
        _add(request, _QUERY, [data.query for data in inputs if isinstance(data, Pair)])
    texts = [data if isinstance(data, bytes) else data.text for data in inputs]
    if any(isinstance(data, Window) for data in inputs):
        texts = _add_windows(request, inputs, texts)
    _add(request, _TEXT, texts)
    return request


def _add_windows(request: Message, inputs: Sequence[ModelInput], texts: Sequence[bytes]) -> list[bytes]:
    """Say which rows are windows of which text; return the rows, where a text that was sent is empty."""
    rows: list[bytes] = []
    entries: list[tuple[int, int, int, int] | None] = []
    sent: dict[bytes, int] = {}
    for place, (data, text) in enumerate(zip(inputs, texts, strict=True)):
        if isinstance(data, Window):
            row = sent.setdefault(text, place)
            entries.append((row, data.number, data.overlap, data.most))
            rows.append(text if row == place else b"")
        else:
            entries.append(None)
            rows.append(text)
    request.parameters[_WINDOWS].string_param = json.dumps(entries)
    return rows


def _add(request: Message, name: str, elements: Sequence[bytes]) -> None:
    request.inputs.add(name=name, datatype="BYTES", shape=[len(elements), 1])
    request.raw_input_contents.append(b"".join(part for text in elements for part in _element(text)))


def _element(text: bytes) -> tuple[bytes, bytes]:
    return _LENGTH.pack(len(text)), text


def read_scores(response: Message, texts: int, labels: int, *, pairs: bool = False) -> list[RawScores]:
    """Return one RawScores an input, in order.

    Raises:
        MalformedResponse: an output is missing, or its type, shape or size is not the promised one.
    """
    logits = struct.unpack(f"<{texts * labels}f", _raw(response, _LOGITS, "FP32", [texts, labels]))
    counts = struct.unpack(f"<{texts}i", _raw(response, _TOKEN_COUNT, "INT32", [texts, 1]))
    if min(counts) < (QUERY_TOO_LONG if pairs else 0):
        raise MalformedResponse(f"{_TOKEN_COUNT} is {min(counts)}")
    return [RawScores(logits[row * labels : (row + 1) * labels], count) for row, count in enumerate(counts)]


def _raw(response: Message, name: str, datatype: str, shape: list[int]) -> bytes:
    """Return the raw contents of the output called ``name``; outputs come in any order."""
    for place, output in enumerate(response.outputs):
        if output.name != name:
            continue
        if output.datatype != datatype or list(output.shape) != shape:
            raise MalformedResponse(
                f"{name} is {output.datatype} {list(output.shape)}, not {datatype} {shape}"
            )
        if place >= len(response.raw_output_contents):
            break
        raw = bytes(response.raw_output_contents[place])
        if len(raw) != 4 * shape[0] * shape[1]:
            raise MalformedResponse(f"{name} has {len(raw)} bytes for shape {shape}")
        return raw
    raise MalformedResponse(f"no output {name}")

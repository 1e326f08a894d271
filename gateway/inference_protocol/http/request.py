"""Requests for inference: JSON, or JSON followed by binary data (the binary tensor data extension)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from gateway.domain.errors import BadInput
from gateway.inference_protocol.messages import InferRequest
from gateway.inference_protocol.parameters import check_counts, check_parameters, class_count
from gateway.inference_protocol.tensors import InputTensor, RequestedOutput, bytes_elements
from gateway.json_body import decode_json

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The HTTP header with the bytes of JSON in a body that has binary data behind them."""

_LENGTH_DIGITS = 18

_Parameters = dict[str, object]


# Optional fields may be null: clients that serialise whole objects send what they leave empty that way.
class _Input(msgspec.Struct):
    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]]
    datatype: str
    parameters: _Parameters | None = None
    data: list[object] | None = None
    """Flat, or a list for each text."""


class _Output(msgspec.Struct):
    name: str
    parameters: _Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


@dataclass(frozen=True, slots=True)
class BinaryOutputs:
    """Which outputs of a response are binary data."""

    by_default: bool
    by_name: dict[str, bool]
    """Of outputs for which the request decides it one by one."""

    def __contains__(self, name: object) -> bool:
        return self.by_name.get(name, self.by_default) if isinstance(name, str) else False


@dataclass(frozen=True, slots=True)
class InferBody:
    """The body of ``…/infer``, and in which form to answer it."""

    request: InferRequest
    binary: BinaryOutputs


def read_infer_body(model: str, version: str, body: bytes, header_lengths: Sequence[str]) -> InferBody:
    """Read the body of a request for inference.

    Args:
        model: the model's name in the path.
        version: the version in the path; empty if there is none.
        body: decompressed.
        header_lengths: the values of the header `HEADER_LENGTH`.

    Raises:
        MalformedBody: see `decode_json`.
        BadInput: the body is not a request for inference, its binary data does not have the announced sizes,
            or it asks for shared memory or a sequence.
    """
    header, binary = _split(body, header_lengths)
    given = decode_json(header, _Request)
    check_counts(len(given.inputs), len(given.outputs or ()))
    parameters = _supported(given.parameters)
    by_name: dict[str, bool] = {}
    outputs = [_requested(output, by_name) for output in given.outputs or ()]
    request = InferRequest(
        model,
        version,
        given.id or "",
        _inputs(given.inputs, binary),
        outputs,
    )
    by_default = _flag(parameters, "binary_data_output") or False
    return InferBody(request, BinaryOutputs(by_default, by_name))


def _split(body: bytes, header_lengths: Sequence[str]) -> tuple[bytes, bytes]:
    """Split a body into JSON and binary data."""
    if not header_lengths:
        return body, b""
    text = header_lengths[0]
    if len(header_lengths) > 1 or not (text.isascii() and text.isdigit() and len(text) <= _LENGTH_DIGITS):
        raise BadInput(f"{HEADER_LENGTH} must be one number of bytes")
    length = int(text)
    if length > len(body):
        raise BadInput(f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes")
    if length == 0:
        raise BadInput(f"{HEADER_LENGTH} is 0; a request must begin with its JSON")
    return body[:length], body[length:]


def _inputs(given: Sequence[_Input], binary: bytes) -> list[InputTensor]:
    tensors = []
    place = 0
    for tensor in given:
        size = _binary_size(tensor)
        elements: Sequence[object]
        if size is None:
            elements = _json_elements(tensor)
        else:
            elements = _binary_elements(tensor, binary[place : place + size], size)
            place += size
        tensors.append(InputTensor(tensor.name, tensor.datatype, tuple(tensor.shape), elements))
    if place != len(binary):
        raise BadInput(
            f"the request has {len(binary)} bytes of binary data, but the binary_data_size of its inputs "
            f"adds up to {place}"
        )
    return tensors


def _json_elements(tensor: _Input) -> list[object]:
    if tensor.data is None:
        raise BadInput(f"input '{tensor.name[:100]}' has neither data nor binary_data_size")
    elements: list[object] = []
    for element in tensor.data:
        if isinstance(element, list):
            elements += element
        else:
            elements.append(element)
    return elements


def _binary_elements(tensor: _Input, raw: bytes, size: int) -> Sequence[object]:
    if tensor.data is not None:
        raise BadInput(f"input '{tensor.name[:100]}' has both data and binary_data_size")
    if len(raw) != size:
        raise BadInput(
            f"the binary_data_size of input '{tensor.name[:100]}' is {size}, but {len(raw)} bytes of binary "
            "data are left for it"
        )
    # Other datatypes are refused by their name, whatever their contents are.
    return bytes_elements(tensor.name, raw) if tensor.datatype == "BYTES" else ()


def _binary_size(tensor: _Input) -> int | None:
    """Return the bytes of an input's binary data; None if its data is JSON."""
    size = _supported(tensor.parameters).get("binary_data_size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadInput(f"the binary_data_size of input '{tensor.name[:100]}' must be a number of bytes")
    return size


def _requested(output: _Output, binary: dict[str, bool]) -> RequestedOutput:
    """Read a requested output; note in ``binary`` whether it chooses to be binary data or not."""
    parameters = _supported(output.parameters)
    chosen = _flag(parameters, "binary_data")
    if chosen is not None:
        binary[output.name] = chosen
    return RequestedOutput(output.name, class_count(output.name, parameters))


def _supported(parameters: _Parameters | None) -> _Parameters:
    """Leave out parameters that are null.

    Raises:
        BadInput: see `check_parameters`.
    """
    kept = {name: value for name, value in (parameters or {}).items() if value is not None}
    check_parameters(kept)
    return kept


def _flag(parameters: _Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadInput(f"parameter '{name}' must be true or false")
    return value

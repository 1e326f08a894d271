"""Responses in the protocol's JSON; the one place that renders answers and errors for ``/v2``."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Container

import msgspec

from gateway.api.failures import render_failure
from gateway.domain.errors import TritonflareError
from gateway.inference_protocol.http.request import HEADER_LENGTH
from gateway.inference_protocol.messages import InferResponse
from gateway.inference_protocol.sentences import describe
from gateway.inference_protocol.tensors import OutputTensor
from gateway.server.message import Header, Response

_BINARY = b"application/octet-stream"
_encode = msgspec.json.Encoder().encode

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, compresslevel=1, mtime=0),
    # The zlib format: what HTTP calls deflate (RFC 9110, section 8.4.1.2).
    "deflate": lambda body: zlib.compress(body, level=1),
}


def answer(body: object, status: int = 200) -> Response:
    """Render a JSON body."""
    return Response(status, _encode(body))


def failure(error: TritonflareError, ai_request_id: str | None) -> Response:
    """Render an error as ``{"error": "…"}``, with the statuses that clients of the protocol know."""
    return render_failure(error, {"error": describe(error, "header")}, ai_request_id)


def infer_response(response: InferResponse, binary: Container[str]) -> Response:
    """Render an inference.

    Args:
        response: what was inferred.
        binary: names of the outputs whose data follows the JSON as binary data.
    """
    blobs: list[bytes] = []
    rendered = [_output(output, blobs if output.name in binary else None) for output in response.outputs]
    body: dict[str, object] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        body["id"] = response.id
    encoded = _encode(body | {"outputs": rendered})
    if not blobs:
        return Response(200, encoded)
    header = (HEADER_LENGTH.lower().encode(), b"%d" % len(encoded))
    return Response(200, encoded + b"".join(blobs), content_type=_BINARY, headers=[header])


def _output(output: OutputTensor, blobs: list[bytes] | None) -> dict[str, object]:
    """Describe an output with its data in it; with ``blobs``, the data is appended there instead."""
    described: dict[str, object] = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": output.shape,
    }
    if blobs is None:
        return described | {"data": [_json_value(value) for value in output.values]}
    blobs.append(output.raw())
    return described | {"parameters": {"binary_data_size": len(blobs[-1])}}


def _json_value(value: float | bytes) -> float | str:
    return value.decode() if isinstance(value, bytes) else value


def compress(response: Response, accept_encoding: list[str]) -> None:
    """Compress the body of a response if the client asks for gzip or deflate; in place.

    Args:
        response: to compress.
        accept_encoding: the values of the header ``Accept-Encoding``.
    """
    accepted = set(_accepted(",".join(accept_encoding)))
    for name, compressor in _COMPRESSORS.items():
        if name in accepted:
            response.body = compressor(response.body)
            header: Header = (b"content-encoding", name.encode())
            response.headers.append(header)
            return


def _accepted(accept_encoding: str) -> list[str]:
    """Return the codings of an ``Accept-Encoding`` that are not excluded by a weight of 0."""
    names = []
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.partition(";")
        if weight.replace(" ", "").rstrip("0").rstrip(".") not in ("q=", "q=0"):
            names.append(name.strip())
    return names

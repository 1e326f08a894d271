"""Responses in the protocol's JSON."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import errors
from gateway.inference_protocol.http.response import compress, failure, infer_response
from gateway.inference_protocol.messages import InferResponse
from gateway.inference_protocol.tensors import OutputTensor
from gateway.refusals import sentence_of
from gateway.server.message import Response

LABEL = OutputTensor("label", "BYTES", (1, 1), ["POSITIVÉ".encode()])
COUNT = OutputTensor("token_count", "INT32", (1, 1), [7])


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_json_has_the_exact_fp32_values(values: list[float]) -> None:
    logits = OutputTensor("logits", "FP32", (1, len(values)), values)
    body = json.loads(infer_response(InferResponse("m", "1", "", [logits]), ()).body)
    assert body["outputs"][0]["data"] == values
    assert struct.pack(f"<{len(values)}f", *body["outputs"][0]["data"]) == logits.raw()


def test_keys_come_in_the_order_of_the_protocol_and_labels_are_text() -> None:
    response = infer_response(InferResponse("m", "1", "7", [LABEL, COUNT]), ())
    assert response.body.decode() == (
        '{"model_name":"m","model_version":"1","id":"7","outputs":['
        '{"name":"label","datatype":"BYTES","shape":[1,1],"data":["POSITIVÉ"]},'
        '{"name":"token_count","datatype":"INT32","shape":[1,1],"data":[7]}]}'
    )
    assert (response.content_type, response.headers) == (b"application/json", [])
    assert b'"id"' not in infer_response(InferResponse("m", "1", "", [COUNT]), ()).body


def test_binary_outputs_follow_the_json_in_their_order() -> None:
    outputs = [LABEL, OutputTensor("logits", "FP32", (1, 1), [1.5]), COUNT]
    response = infer_response(InferResponse("m", "1", "", outputs), {"label", "token_count"})
    assert response.content_type == b"application/octet-stream"
    ((name, length),) = response.headers
    assert name == b"inference-header-content-length"
    header = json.loads(response.body[: int(length)])
    assert [output.get("parameters") for output in header["outputs"]] == [
        {"binary_data_size": 13},
        None,
        {"binary_data_size": 4},
    ]
    assert [output.get("data") for output in header["outputs"]] == [None, [1.5], None]
    assert response.body[int(length) :] == LABEL.raw() + COUNT.raw()


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [
        (["gzip"], "gzip"),
        (["deflate"], "deflate"),
        (["GZIP"], "gzip"),
        (["deflate, gzip;q=0.5"], "gzip"),
        (["br", "deflate"], "deflate"),
        (["gzip;q=0, deflate;q=1.0"], "deflate"),
        (["gzip; q=0.000"], None),
        (["identity"], None),
        (["br, zstd, *"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_response_is_compressed_where_the_client_asks(
    accept_encoding: list[str], coding: str | None
) -> None:
    response = Response(200, b"{}" * 100)
    compress(response, accept_encoding)
    expected = [] if coding is None else [(b"content-encoding", coding.encode())]
    assert response.headers == expected
    undo: dict[str | None, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
    assert undo.get(coding, bytes)(response.body) == b"{}" * 100


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MissingCredentials(), 401),
        (errors.MalformedCredentials("Authorization"), 401),
        (errors.UnknownToken(), 401),
        (errors.ForeignAccount(), 403),
        (errors.NoRoute(), 404),
        (errors.NoSuchModel("m"), 404),
        (errors.NoSuchVersion("m", "2", "1"), 404),
        (errors.MethodNotImplemented("Not here."), 404),
        (errors.MethodNotSupported("POST", ("GET", "HEAD")), 405),
        (errors.BadInput("x"), 400),
        (errors.MalformedBody("x"), 400),
        (errors.BodyTooLarge(1), 413),
        (errors.DeadlineExceeded(), 408),
        (errors.Overloaded(), 429),
        (errors.RateLimited(2.5), 429),
        (errors.BackendUnavailable(), 503),
        (errors.ModelUnavailable(), 503),
        (errors.BackendFailed(), 500),
        (errors.UnknownError(), 500),
        (errors.MalformedRequest(), 400),
        (errors.ClientDisconnected(), 499),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_have_the_statuses_of_the_protocol(error: errors.TritonflareError, status: int) -> None:
    response = failure(error, "id")
    assert (response.status, response.code) == (status, error.code)
    assert json.loads(response.body) == {"error": sentence_of(error, "header")}
    headers = dict(response.headers)
    assert headers[b"cf-ai-req-id"] == b"id"
    assert (b"retry-after" in headers) == (error.retry_after_s is not None)
    assert headers.get(b"www-authenticate") == (b"Bearer" if status == 401 else None)
    assert headers.get(b"allow") == (b"GET, HEAD" if status == 405 else None)

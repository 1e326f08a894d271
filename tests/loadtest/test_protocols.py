"""What is sent over gRPC, and which answers are taken for right."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from loadtest.inference import OUTPUTS, read_labels, read_scores, to_fp32
from loadtest.protocols.grpc import GrpcRequests, address_of
from loadtest.reference import NoReferenceError
from loadtest.traffic import KINDS, MIXED, Traffic, read_texts
from tests.support.fake_triton import read_texts as texts_of

MODEL = "@cf/acme/mood"
LABELS = ["N", "P"]


def _response(*rows: tuple[float, float]) -> Any:
    response = service_pb2.ModelInferResponse(model_name=MODEL)
    # Not in the order of the request: outputs are found by name.
    response.outputs.add(name="token_count", datatype="INT32", shape=[len(rows), 1])
    response.outputs.add(name="probabilities", datatype="FP32", shape=[len(rows), 2])
    response.raw_output_contents.append(struct.pack("<i", 3) * len(rows))
    response.raw_output_contents.append(b"".join(struct.pack("<2f", *row) for row in rows))
    return response


def test_calls_of_each_kind_are_what_they_are_called() -> None:
    traffic = Traffic(GrpcRequests(MODEL), MIXED, read_texts(), seed=3)
    calls = [traffic.draw() for _ in range(2000)]
    assert {call.kind for call in calls} == set(KINDS)
    for call in calls:
        request = service_pb2.ModelInferRequest.FromString(call.body)
        if call.kind == "invalid":
            assert call.refusal is not None
            assert not call.texts
            continue
        assert tuple(text.decode() for text in texts_of(request)) == call.texts
        assert len(call.texts) == (8 if call.kind == "several" else 1)
        assert list(request.inputs[0].shape) == [len(call.texts), 1]
        assert (request.model_name, [output.name for output in request.outputs]) == (MODEL, list(OUTPUTS))


def test_scores_are_read_by_the_names_of_outputs_and_the_order_of_labels() -> None:
    found = read_scores(_response((0.25, 0.75), (0.5, 0.5)), MODEL, LABELS, 2)
    assert found == [{"N": 0.25, "P": 0.75}, {"N": 0.5, "P": 0.5}]


def _other_model(response: Any) -> None:
    response.model_name = "other"


def _no_contents(response: Any) -> None:
    del response.raw_output_contents[:]


def _another_output(response: Any) -> None:
    response.outputs[0].name = "logits"


def _flat(response: Any) -> None:
    response.outputs[1].shape[:] = [2]


def _doubles(response: Any) -> None:
    response.outputs[1].datatype = "FP64"


def _cut_off(response: Any) -> None:
    response.raw_output_contents[1] = response.raw_output_contents[1][:-1]


def _nan(response: Any) -> None:
    response.raw_output_contents[1] = struct.pack("<2f", math.nan, 0.5)


def _no_tokens(response: Any) -> None:
    response.raw_output_contents[0] = struct.pack("<i", 0)


@pytest.mark.parametrize(
    "damage",
    [_other_model, _no_contents, _another_output, _flat, _doubles, _cut_off, _nan, _no_tokens],
)
def test_anything_but_the_documented_outputs_is_no_answer(damage: Any) -> None:
    response = _response((0.25, 0.75))
    damage(response)
    with pytest.raises(ValueError, match=r"."):
        read_scores(response, MODEL, LABELS, 1)


@pytest.mark.parametrize("labels", ["", "{}", "[1, 2]", '["N"]', '["N", "N"]', "null"])
def test_what_are_no_labels_is_refused(labels: str) -> None:
    config = service_pb2.ModelConfigResponse()
    config.config.parameters["labels"].string_value = labels
    with pytest.raises(ValueError, match=r"."):
        read_labels(config)


def test_labels_are_read_in_their_order() -> None:
    config = service_pb2.ModelConfigResponse()
    config.config.parameters["labels"].string_value = json.dumps(["P", "N"])
    assert read_labels(config) == ["P", "N"]


def test_a_reference_of_http_is_rounded_to_what_grpc_carries() -> None:
    (value,) = struct.unpack("<f", struct.pack("<f", 0.1))
    assert to_fp32({"N": 0.1, "P": 0.5}) == {"N": value, "P": 0.5}
    assert value != 0.1


@pytest.mark.parametrize(
    ("grpc_host", "host", "address", "secure"),
    [
        ("", "http://127.0.0.1:8787", "127.0.0.1:8001", False),
        ("", "https://api.example.org/client/v4", "api.example.org:8001", True),
        ("", "http://[::1]:8787", "[::1]:8001", False),
        ("10.0.0.7:9001", "http://127.0.0.1:8787", "10.0.0.7:9001", False),
        ("[::1]:9001", "http://127.0.0.1:8787", "[::1]:9001", False),
        ("grpc.example.org", "https://api.example.org", "grpc.example.org:8001", True),
        ("http://10.0.0.7:9001", "https://api.example.org", "10.0.0.7:9001", False),
        ("https://10.0.0.7", "http://api.example.org", "10.0.0.7:8001", True),
    ],
)
def test_the_address_follows_the_host_unless_it_is_given(
    grpc_host: str, host: str, address: str, secure: bool
) -> None:
    assert address_of(grpc_host, host) == (address, secure)


@pytest.mark.parametrize(
    "grpc_host", ["ftp://h:1", ":8001", "h:0", "h:port", "h:99999", "h:1/path", "http://"]
)
def test_what_is_no_address_is_a_clear_error(grpc_host: str) -> None:
    with pytest.raises(NoReferenceError, match=r"is not a valid address; set --grpc-host ADDRESS:PORT"):
        address_of(grpc_host, "http://127.0.0.1:8787")

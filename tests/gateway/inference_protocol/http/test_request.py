"""Bodies of ``…/infer``."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import BadInput, MalformedBody
from gateway.inference_protocol.http.request import HEADER_LENGTH, InferBody, read_infer_body
from gateway.inference_protocol.tensors import OutputTensor, RequestedOutput
from tests.gateway.domain.test_validate import JSON_VALUES


def text_input(**changes: Any) -> dict[str, Any]:
    return {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]} | changes


def read(body: object, binary: bytes = b"", *, lengths: list[str] | None = None) -> InferBody:
    """Read a body of JSON, and of binary data if there is some."""
    header = json.dumps(body).encode()
    if lengths is None:
        lengths = [str(len(header))] if binary else []
    return read_infer_body("model", "", header + binary, lengths)


def elements(body: object, binary: bytes = b"") -> list[object]:
    return list(read(body, binary).request.inputs[0].elements)


def raw(*texts: bytes) -> bytes:
    return OutputTensor("o", "BYTES", (len(texts),), texts).raw()


def binary_input(size: object, **changes: Any) -> dict[str, Any]:
    given = text_input(parameters={"binary_data_size": size}) | changes
    return {key: value for key, value in given.items() if key != "data" or key in changes}


def test_a_request_is_read_with_its_defaults() -> None:
    asked = read({"inputs": [text_input()]})
    request = asked.request
    assert (request.model, request.version, request.id, list(request.outputs)) == ("model", "", "", [])
    assert (request.inputs[0].name, request.inputs[0].datatype, request.inputs[0].shape) == (
        "TEXT",
        "BYTES",
        (1, 1),
    )
    assert "label" not in asked.binary


@pytest.mark.parametrize("data", [["a", "b"], [["a"], ["b"]], [["a", "b"]]])
def test_data_is_flat_or_nested(data: list[object]) -> None:
    assert elements({"inputs": [text_input(shape=[2, 1], data=data)]}) == ["a", "b"]


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4))
def test_binary_data_is_read(texts: list[bytes]) -> None:
    binary = raw(*texts)
    assert elements({"inputs": [binary_input(len(binary), shape=[len(texts)])]}, binary) == texts


def test_requested_outputs_have_their_form_and_classes() -> None:
    outputs = [
        {"name": "label"},
        {"name": "logits", "parameters": {"binary_data": True, "other": [1]}},
        {"name": "probabilities", "parameters": {"binary_data": False, "classification": 2}},
    ]
    body = {"inputs": [text_input()], "outputs": outputs}
    asked = read(body)
    assert list(asked.request.outputs) == [
        RequestedOutput("label"),
        RequestedOutput("logits"),
        RequestedOutput("probabilities", 2),
    ]
    names = ("label", "logits", "probabilities")
    assert [name in asked.binary for name in names] == [False, True, False]
    asked = read(body | {"parameters": {"binary_data_output": True}})
    assert [name in asked.binary for name in names] == [True, True, False]


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"priority": 5, "timeout": 1, "anything": {"a": [1]}},
        {"sequence_id": 0, "sequence_start": False},
        {"sequence_id": ""},
        {"sequence_id": "0"},
    ],
)
def test_parameters_that_change_nothing_are_ignored(parameters: object) -> None:
    assert elements({"inputs": [text_input()], "parameters": parameters, "other": 1}) == ["a"]


def test_null_is_as_good_as_absent() -> None:
    output = {"name": "label", "parameters": {"binary_data": None, "classification": None}}
    parameters = {"binary_data_output": None, "sequence_id": None}
    asked = read(
        {"id": None, "parameters": parameters, "inputs": [text_input(parameters=None)], "outputs": [output]}
    )
    assert (asked.request.id, list(asked.request.outputs)) == ("", [RequestedOutput("label")])
    assert "label" not in asked.binary
    assert list(read({"inputs": [text_input()], "outputs": None}).request.outputs) == []


@pytest.mark.parametrize("sequence_id", [1, "a", "1", 2**64, 0.5, [], {}])
def test_sequences_are_refused(sequence_id: object) -> None:
    with pytest.raises(BadInput, match="sequences are not supported"):
        read({"inputs": [text_input()], "parameters": {"sequence_id": sequence_id}})


def test_shared_memory_is_refused() -> None:
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    with pytest.raises(BadInput, match="shared memory is not supported"):
        read({"inputs": [binary_input(0, parameters=region)]})
    with pytest.raises(BadInput, match="shared memory is not supported"):
        read({"inputs": [text_input()], "outputs": [{"name": "label", "parameters": region}]})


@pytest.mark.parametrize(
    "header_length", ["-1", "+5", "1.5", "", "x", " 5", "٣", "9" * 18, "9" * 5000, "0", "1000"]
)
def test_a_header_length_that_is_none_or_beyond_the_body_is_refused(header_length: str) -> None:
    with pytest.raises(BadInput, match=HEADER_LENGTH) as caught:
        read({"inputs": [text_input()]}, lengths=[header_length])
    assert len(caught.value.message) < 200


def test_two_header_lengths_are_refused() -> None:
    with pytest.raises(BadInput, match="must be one number of bytes"):
        read({"inputs": [text_input()]}, lengths=["5", "5"])


def test_a_header_length_inside_the_json_makes_the_body_malformed() -> None:
    with pytest.raises(MalformedBody):
        read({"inputs": [text_input()]}, lengths=["10"])


@pytest.mark.parametrize(
    ("inputs", "binary", "problem"),
    [
        ([binary_input(5)], raw(b"a") + b"x", "has 6 bytes of binary data, but .* adds up to 5"),
        ([binary_input(6)], raw(b"a"), "the binary_data_size of input 'TEXT' is 6, but 5 bytes"),
        ([binary_input(2**63 - 1)], raw(b"a"), "is 9223372036854775807, but 5 bytes"),
        ([binary_input(5)], b"", "the binary_data_size of input 'TEXT' is 5, but 0 bytes"),
        ([binary_input(5), binary_input(5)], raw(b"a"), "is 5, but 0 bytes of binary data are left for it"),
        ([text_input()], raw(b"a"), "has 5 bytes of binary data, but .* adds up to 0"),
        ([binary_input(5, data=["a"])], raw(b"a"), "has both data and binary_data_size"),
        ([binary_input(None)], b"", "has neither data nor binary_data_size"),
        ([binary_input(4)], b"\xff\xff\xff\xff", "end inside element 0"),
        ([binary_input(-1)], raw(b"a"), "must be a number of bytes"),
        ([binary_input("5")], raw(b"a"), "must be a number of bytes"),
        ([binary_input(5.0)], raw(b"a"), "must be a number of bytes"),
        ([binary_input(True)], raw(b"a"), "must be a number of bytes"),
        ([binary_input(2**64)], raw(b"a"), "is 18446744073709551616, but 5 bytes"),
    ],
)
def test_binary_data_that_does_not_add_up_is_refused(
    inputs: list[object], binary: bytes, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem.replace("|", r"\|")):
        read({"inputs": inputs}, binary)


@pytest.mark.parametrize(
    "shape", [[10**400], [2**63], [-(2**63) - 1], ["1"], [1.5], [True], [None], [[1]], 1, "1", None, {}]
)
def test_shapes_are_lists_of_64_bit_integers(shape: object) -> None:
    with pytest.raises(BadInput, match=r"at `\$\.inputs\[0\]\.shape"):
        read({"inputs": [text_input(shape=shape)]})


@given(
    st.recursive(
        JSON_VALUES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "id",
                        "inputs",
                        "outputs",
                        "parameters",
                        "name",
                        "shape",
                        "datatype",
                        "data",
                        "binary_data_size",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    ),
    st.binary(max_size=10),
)
def test_any_json_is_read_or_refused_in_a_known_way(value: object, binary: bytes) -> None:
    for body in (value, {"inputs": value}, {"inputs": [value]}, {"inputs": [text_input()], "outputs": value}):
        with suppress(BadInput, MalformedBody):
            read(body, binary)


@pytest.mark.parametrize("value", [0, 1, "true", [], {}])
def test_flags_are_true_or_false(value: object) -> None:
    with pytest.raises(BadInput, match="parameter 'binary_data_output' must be true or false"):
        read({"inputs": [text_input()], "parameters": {"binary_data_output": value}})
    output = {"name": "label", "parameters": {"binary_data": value}}
    with pytest.raises(BadInput, match="parameter 'binary_data' must be true or false"):
        read({"inputs": [text_input()], "outputs": [output]})


@pytest.mark.parametrize("value", ["1", 1.0, True, [], {}])
def test_a_class_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(
        BadInput, match="parameter 'classification' of output 'logits' must be a whole number"
    ):
        read(
            {
                "inputs": [text_input()],
                "outputs": [{"name": "logits", "parameters": {"classification": value}}],
            }
        )

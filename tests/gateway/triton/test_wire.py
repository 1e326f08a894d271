"""Tensors as bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from gateway.domain.inputs import ModelInput, Window
from gateway.triton.wire import MalformedResponse, infer_request, read_scores
from tests.support.fake_triton import read_texts

FLOAT = st.floats(width=32, allow_nan=False)
ROW = st.tuples(st.tuples(FLOAT, FLOAT, FLOAT), st.integers(0, 2**31 - 1))


def response(rows: list[tuple[tuple[float, ...], int]], order: tuple[str, str]) -> Any:
    contents = {
        "logits": ("FP32", len(rows[0][0]), b"".join(struct.pack(f"<{len(x)}f", *x) for x, _ in rows)),
        "token_count": ("INT32", 1, b"".join(struct.pack("<i", count) for _, count in rows)),
    }
    message = service_pb2.ModelInferResponse()
    for name in order:
        datatype, width, raw = contents[name]
        message.outputs.add(name=name, datatype=datatype, shape=[len(rows), width])
        message.raw_output_contents.append(raw)
    return message


@given(st.lists(ROW, min_size=1, max_size=8), st.booleans())
def test_scores_come_back_row_by_row_in_any_order_of_the_outputs(
    rows: list[tuple[tuple[float, ...], int]], swapped: bool
) -> None:
    order = ("token_count", "logits") if swapped else ("logits", "token_count")
    found = read_scores(response(rows, order), len(rows), 3)
    assert [(raw.logits, raw.token_count) for raw in found] == rows


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8))
def test_texts_are_written_with_their_lengths(texts: list[bytes]) -> None:
    request = infer_request("ensemble", texts)
    assert request.model_name == "ensemble"
    assert list(request.inputs[0].shape) == [len(texts), 1]
    raw = request.raw_input_contents[0]
    assert raw == b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_windows_name_the_row_of_their_text_which_is_sent_once() -> None:
    first, second = b"a b c", b"d e f"
    inputs: list[ModelInput] = [
        Window(first, 1, 2, 9, 5),
        b"a b c",
        Window(second, 1, 2, 9, 5),
        Window(first, 3, 2, 9, 5),
        Window(second, 2, 2, 9, 5),
    ]
    request = infer_request("ensemble", inputs)
    assert read_texts(request) == [first, first, second, b"", b""]
    asked = json.loads(request.parameters["windows"].string_param)
    assert asked == [[0, 1, 2, 9], None, [2, 1, 2, 9], [0, 3, 2, 9], [2, 2, 2, 9]]
    assert not infer_request("ensemble", [first, second]).parameters


@pytest.mark.parametrize(("texts", "labels"), [(1, 3), (3, 3), (2, 2), (2, 4)])
def test_another_number_of_texts_or_labels_is_malformed(texts: int, labels: int) -> None:
    message = response([((1.0, 2.0, 3.0), 5)] * 2, ("logits", "token_count"))
    with pytest.raises(MalformedResponse):
        read_scores(message, texts, labels)

"""Raw contents of tensors."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from gateway.domain.errors import BadInput
from gateway.inference_protocol.tensors import OutputTensor, bytes_elements, to_fp32

ELEMENTS = st.lists(st.binary(max_size=40), max_size=6)
FP32 = st.floats(width=32, allow_nan=False)


def raw_bytes(elements: list[bytes]) -> bytes:
    return OutputTensor("o", "BYTES", (len(elements), 1), elements).raw()


@given(ELEMENTS)
def test_the_elements_of_raw_contents_come_back(elements: list[bytes]) -> None:
    assert bytes_elements("TEXT", raw_bytes(elements)) == elements


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6))
def test_bytes_are_written_and_read_as_tritonclient_does(elements: list[bytes]) -> None:
    serialized = serialize_byte_tensor(np.array(elements, dtype=np.object_)).item()
    assert raw_bytes(elements) == serialized
    assert bytes_elements("TEXT", serialized) == list(deserialize_bytes_tensor(serialized))


@given(ELEMENTS.filter(bool), st.data())
def test_cut_off_contents_are_refused_unless_an_element_ends_there(
    elements: list[bytes], data: st.DataObject
) -> None:
    raw = raw_bytes(elements)
    end = data.draw(st.integers(0, len(raw) - 1))
    ends = [len(raw_bytes(elements[:count])) for count in range(len(elements))]
    if end in ends:
        assert bytes_elements("TEXT", raw[:end]) == elements[: ends.index(end)]
        return
    place = sum(1 for other in ends if other <= end) - 1
    with pytest.raises(BadInput, match=f"input 'TEXT' end inside element {place};"):
        bytes_elements("TEXT", raw[:end])


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\x05\x00\x00\x00four", b"\x00", b"\x00\x00\x00"])
def test_a_length_beyond_the_contents_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput, match="end inside element 0"):
        bytes_elements("TEXT", raw)


def test_a_long_name_of_an_input_is_shown_in_part() -> None:
    with pytest.raises(BadInput) as caught:
        bytes_elements("n" * 1_000_000, b"\x01")
    assert len(caught.value.message) < 300


@given(st.lists(FP32, max_size=8))
def test_fp32_contents_are_little_endian_and_exact(values: list[float]) -> None:
    raw = OutputTensor("o", "FP32", (1, len(values)), values).raw()
    assert raw == np.array(values, dtype="<f4").tobytes()
    assert list(struct.unpack(f"<{len(values)}f", raw)) == values


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8))
def test_int32_contents_are_little_endian(values: list[int]) -> None:
    assert OutputTensor("o", "INT32", (len(values), 1), values).raw() == np.array(values, "<i4").tobytes()


@given(st.lists(st.floats(0, 1), max_size=8))
def test_doubles_are_rounded_to_the_nearest_fp32(values: list[float]) -> None:
    assert to_fp32(values) == tuple(np.array(values, dtype=np.float32).astype(float))

"""The inputs TEXT and QUERY."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import BadInput
from gateway.domain.requests import BatchCall, PairRequest, SingleCall, TextRequest
from gateway.domain.tasks import Task
from gateway.inference_protocol.inputs import read_inputs
from gateway.inference_protocol.tensors import InputTensor

MAX_TEXTS = 4


def read(
    *elements: object, shape: tuple[int, ...] | None = None, name: str = "TEXT", datatype: str = "BYTES"
) -> list[object]:
    """Return the texts of a request with one input."""
    given_shape = (len(elements), 1) if shape is None else shape
    call = read_inputs([InputTensor(name, datatype, given_shape, elements)], Task.CLASSIFICATION, MAX_TEXTS)
    if isinstance(call, SingleCall):
        return [_text(call.request)]
    assert isinstance(call, BatchCall)
    assert [item.reference for item in call.items] == [None] * len(call.items)
    return [_text(item.request) for item in call.items]


def _text(request: object) -> object:
    return request.text if isinstance(request, TextRequest) else request


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=MAX_TEXTS)
)
def test_texts_are_the_same_as_bytes_and_as_strings_and_in_both_shapes(texts: list[str]) -> None:
    for elements in (texts, [text.encode() for text in texts]):
        for shape in ((len(texts),), (len(texts), 1)):
            assert read(*elements, shape=shape) == texts


@pytest.mark.parametrize(
    "shape",
    [(), (1, 1, 1), (1, 2), (2, 0), (0,), (0, 1), (-1,), (-1, 1), (1,) * 1000, (2**62, 2**62), (1, -1)],
    ids=str,
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"input 'TEXT' must have the shape \[n\] or \[n, 1\]") as caught:
        read("a", shape=shape)
    assert len(caught.value.message) < 300


def test_more_texts_than_a_request_may_have_are_refused_by_the_shape_alone() -> None:
    with pytest.raises(BadInput, match="has 5 texts; a request may have 4"):
        read("a", shape=(5, 1))
    with pytest.raises(BadInput, match=f"has {2**63 - 1} texts"):
        read("a", shape=(2**63 - 1,))


@pytest.mark.parametrize("elements", [(), ("a",), ("a", "b", "c")])
def test_the_number_of_elements_must_be_that_of_the_shape(elements: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match=rf"has {len(elements)} elements, but its shape \[2, 1\] needs 2"):
        read(*elements, shape=(2, 1))


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        ("", "is empty"),
        (b"", "is empty"),
        (b"\xff", "is not valid UTF-8"),
        (b"\xed\xa0\x80", "is not valid UTF-8"),
        (1, "is not a string"),
        (1.5, "is not a string"),
        (True, "is not a string"),
        (None, "is not a string"),
        ({}, "is not a string"),
        (["a"], "is not a string"),
    ],
)
def test_an_element_that_is_no_text_is_named_by_its_place(element: object, problem: str) -> None:
    (error,) = read("a", element)
    assert isinstance(error, BadInput)
    assert f"element 1 of input 'TEXT' {problem}" in error.message


def test_a_datatype_other_than_bytes_is_refused() -> None:
    with pytest.raises(BadInput, match="must have the datatype BYTES, not 'FP32'"):
        read("a", datatype="FP32")


@pytest.mark.parametrize("names", [[], ["text"], ["TEXT", "TEXT"], ["TEXT", "MASK"], ["x" * 10_000] * 1000])
def test_exactly_the_input_text_is_needed(names: list[str]) -> None:
    with pytest.raises(BadInput, match="the only input must be 'TEXT', but the request has") as caught:
        read_inputs(
            [InputTensor(name, "BYTES", (1,), ["a"]) for name in names], Task.CLASSIFICATION, MAX_TEXTS
        )
    assert len(caught.value.message) < 700


@given(
    st.lists(
        st.binary(max_size=5) | st.text(st.characters(), max_size=5) | st.integers() | st.none(), max_size=6
    ),
    st.lists(st.integers(-2, 6), max_size=3).map(tuple),
)
def test_any_input_is_read_or_refused_in_a_known_way(elements: list[object], shape: tuple[int, ...]) -> None:
    with suppress(BadInput):
        texts = read(*elements, shape=shape)
        if isinstance(texts[0], BadInput):
            return  # of the first text that is none
        assert len(texts) == shape[0] <= MAX_TEXTS
        assert all(isinstance(text, str) and text for text in texts)


def read_pairs(queries: list[object], texts: list[object], **changes: tuple[int, ...]) -> list[object]:
    """Return the requests that two inputs, in no particular order, ask of a reranker."""
    tensors = [
        InputTensor("TEXT", "BYTES", changes.get("text_shape", (len(texts), 1)), texts),
        InputTensor("QUERY", "BYTES", changes.get("query_shape", (len(queries),)), queries),
    ]
    call = read_inputs(tensors, Task.RERANK, MAX_TEXTS)
    return [call.request] if isinstance(call, SingleCall) else [item.request for item in call.items]


def test_a_reranker_reads_pairs_of_what_stands_at_one_place() -> None:
    assert read_pairs(["q"], [b"a"]) == [PairRequest("q", "a")]
    assert read_pairs(["q", b"r"], ["a", "b"]) == [PairRequest("q", "a"), PairRequest("r", "b")]


def test_queries_and_texts_must_be_as_many() -> None:
    with pytest.raises(BadInput, match="inputs 'QUERY' and 'TEXT' must have the same number of elements"):
        read_pairs(["q"], ["a", "b"])


def test_more_pairs_than_a_request_may_have_are_refused() -> None:
    with pytest.raises(BadInput, match="input 'QUERY' has 5 texts; a request may have 4"):
        read_pairs(["q"] * 5, ["a"] * 5)


@pytest.mark.parametrize(
    ("queries", "texts", "problem"),
    [
        (["q", ""], ["a", "b"], "element 1 of input 'QUERY' is empty"),
        (["q", "r"], ["a", ""], "element 1 of input 'TEXT' is empty"),
        ([b"\xff"], ["a"], "element 0 of input 'QUERY' is not valid UTF-8"),
        (["q"], [1], "element 0 of input 'TEXT' is not a string"),
    ],
)
def test_a_part_of_a_pair_that_is_no_text_is_named(
    queries: list[object], texts: list[object], problem: str
) -> None:
    (error,) = read_pairs(queries, texts)
    assert isinstance(error, BadInput)
    assert problem in error.message


@pytest.mark.parametrize("names", [[], ["TEXT"], ["QUERY"], ["QUERY", "QUERY"], ["QUERY", "TEXT", "TEXT"]])
def test_a_reranker_needs_exactly_its_two_inputs(names: list[str]) -> None:
    with pytest.raises(BadInput, match="the inputs must be 'QUERY' and 'TEXT', but the request has"):
        read_inputs([InputTensor(name, "BYTES", (1,), ["a"]) for name in names], Task.RERANK, MAX_TEXTS)

"""The outputs of a text classifier."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import BadInput
from gateway.domain.scores import softmax
from gateway.domain.service import Classification
from gateway.inference_protocol.outputs import NAMES, check_outputs, make_outputs
from gateway.inference_protocol.tensors import OutputTensor, RequestedOutput

LABELS = ("NEGATIVE", "NEUTRAL", "POSITIVE")
LOGITS = st.tuples(*[st.floats(-20, 20, width=32)] * len(LABELS))


def classification(logits: tuple[float, ...], token_count: int = 3) -> Classification:
    scores = list(zip(LABELS, softmax(logits), strict=True))
    return Classification(scores, token_count, truncated=False, logits=logits, token_count=token_count)


def outputs(answers: list[Classification], *requested: RequestedOutput) -> dict[str, OutputTensor]:
    check_outputs(requested)
    return {output.name: output for output in make_outputs(answers, requested)}


def test_all_outputs_are_made_if_none_is_requested() -> None:
    made = make_outputs([classification((0.0, 1.0, 5.0)), classification((5.0, 1.0, 0.0), 7)], ())
    assert [(output.name, output.datatype, output.shape) for output in made] == [
        ("logits", "FP32", (2, 3)),
        ("probabilities", "FP32", (2, 3)),
        ("label", "BYTES", (2, 1)),
        ("token_count", "INT32", (2, 1)),
    ]
    assert list(made[0].values) == [0.0, 1.0, 5.0, 5.0, 1.0, 0.0]
    assert list(made[2].values) == [b"POSITIVE", b"NEGATIVE"]
    assert list(made[3].values) == [3, 7]


def test_requested_outputs_are_made_in_the_order_of_the_request() -> None:
    requested = [RequestedOutput(name) for name in ("token_count", "logits")]
    assert list(outputs([classification((0.0, 1.0, 5.0))], *requested)) == ["token_count", "logits"]


@given(st.lists(LOGITS, min_size=1, max_size=4))
def test_probabilities_are_the_scores_rounded_to_fp32(rows: list[tuple[float, ...]]) -> None:
    answers = [classification(row) for row in rows]
    made = outputs(answers, RequestedOutput("probabilities"))["probabilities"]
    scores = [score for answer in answers for _, score in answer.scores]
    assert made.raw() == struct.pack(f"<{len(scores)}f", *scores)
    assert struct.unpack(f"<{len(scores)}f", made.raw()) == tuple(made.values)


@given(
    st.lists(LOGITS, min_size=1, max_size=3), st.integers(1, 5), st.sampled_from(["logits", "probabilities"])
)
def test_classes_come_best_first_with_index_and_label(
    rows: list[tuple[float, ...]], count: int, name: str
) -> None:
    answers = [classification(row) for row in rows]
    full = outputs(answers, RequestedOutput(name))[name].values
    made = outputs(answers, RequestedOutput(name, count))[name]
    count = min(count, len(LABELS))
    assert (made.datatype, made.shape) == ("BYTES", (len(rows), count))
    for place, row in enumerate(rows):
        del row
        classes = [
            value.decode().split(":")
            for value in made.values[place * count : (place + 1) * count]
            if isinstance(value, bytes)
        ]
        values = [full[place * len(LABELS) + int(index)] for _, index, _ in classes]
        assert values == sorted(full[place * len(LABELS) :][: len(LABELS)], reverse=True)[:count]
        assert [label for _, _, label in classes] == [LABELS[int(index)] for _, index, _ in classes]
        for value, (shown, _, _) in zip(values, classes, strict=True):
            assert isinstance(value, float)
            assert math.isclose(float(shown), value, abs_tol=5e-7)


def test_of_equal_classes_the_first_comes_first() -> None:
    made = outputs([classification((1.0, 1.0, 1.0))], RequestedOutput("logits", 2))["logits"]
    assert list(made.values) == [b"1.000000:0:NEGATIVE", b"1.000000:1:NEUTRAL"]


@pytest.mark.parametrize(
    ("requested", "problem"),
    [
        ([RequestedOutput("scores")], f"there is no output 'scores'; the outputs are {', '.join(NAMES)}"),
        ([RequestedOutput("")], "there is no output ''"),
        ([RequestedOutput("label")] * 2, "output 'label' is requested twice"),
        ([RequestedOutput("label", 1)], "output 'label' has no classes"),
        ([RequestedOutput("token_count", 2)], "output 'token_count' has no classes"),
        ([RequestedOutput("logits", -1)], "the class count of output 'logits' must be positive"),
    ],
)
def test_outputs_that_do_not_exist_are_refused(requested: list[RequestedOutput], problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_outputs(requested)
    assert problem in caught.value.message


def test_a_long_name_of_an_output_is_shown_in_part() -> None:
    with pytest.raises(BadInput) as caught:
        check_outputs([RequestedOutput("n" * 1_000_000)])
    assert len(caught.value.message) < 300

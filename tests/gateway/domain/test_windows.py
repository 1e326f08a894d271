"""Windows of long texts: how many there are, what is asked, and what the answers say together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BackendFailed, Overloaded
from gateway.domain.inputs import ModelInput, Window
from gateway.domain.options import CallOptions
from gateway.domain.requests import TextRequest
from gateway.domain.scores import ProblemType
from gateway.domain.service import Classification, Predictor
from gateway.domain.tasks import Task
from gateway.domain.windows import WindowLimits, WindowPlan, combine, reads_windows

MODEL = Model("c", "c", ("A", "B"), 12, ProblemType.SINGLE_LABEL, special_tokens=2)
TEXT = b"text"


class Text:
    """A text of so many tokens, special ones included, which is cut without being read to its end."""

    def __init__(self, tokens: int, first_read: int, places: int = 1000) -> None:
        self.tokens = tokens
        self.first = RawScores((0.0, 1.0), min(tokens, max(first_read, MODEL.max_tokens + 1)))
        self.asked: list[list[int]] = []
        self.reserved: list[int] = []
        self.places = places
        self.overlaps: set[int] = set()

    async def classify(self, windows: Sequence[ModelInput]) -> list[Answer]:
        numbers, answers = [], []
        for window in windows:
            assert isinstance(window, Window)
            numbers.append(window.number)
            self.overlaps.add(window.overlap)
            step = 10 - window.overlap
            left = self.tokens - window.number * step
            counted = min(left, 12 + (window.most - 1 - window.number) * step + 1)
            answers.append(RawScores((float(window.number), 0.0), counted))
        self.asked.append(numbers)
        return list(answers)

    @contextmanager
    def reserve(self, places: int) -> Iterator[None]:
        if places > self.places:
            raise Overloaded
        self.reserved.append(places)
        yield

    def read(self, limits: WindowLimits, model: Model = MODEL) -> list[RawScores]:
        plan = WindowPlan(model, limits)
        return asyncio.run(plan.read(TEXT, self.first, self.classify, self.reserve))


def windows_of(tokens: int, overlap: int) -> list[int]:
    """The tokens of each window, special ones included."""
    own, start = tokens - 2, 0
    found: list[int] = []
    while not found or start + overlap < own:
        found.append(min(10, own - start) + 2)
        start += 10 - overlap
    return found


@given(st.integers(13, 300), st.integers(13, 60), st.integers(0, 5), st.integers(2, 40))
def test_each_window_is_asked_for_once_and_in_order(tokens: int, first: int, overlap: int, most: int) -> None:
    text = Text(tokens, first)
    read = text.read(WindowLimits(overlap, most))
    wanted = windows_of(tokens, overlap)
    assert [min(raw.token_count, 12) for raw in read] == wanted[:most]
    assert [number for numbers in text.asked for number in numbers] == list(range(1, len(read)))
    assert len(text.asked) <= 2, "what one round cannot know, the next one does"
    assert text.reserved == [len(numbers) - 1 for numbers in text.asked if len(numbers) > 1]
    plan = WindowPlan(MODEL, WindowLimits(overlap, most))
    assert plan.weights(read) == [count - 2 for count in wanted[:most]]
    assert plan.is_long(read[-1]) is (len(wanted) > most)
    if len(wanted) <= most:
        assert plan.token_count(read) == tokens


@pytest.mark.parametrize(
    ("places", "together"), [(9, [9]), (7, [4, 5]), (3, [4, 2, 3]), (2, [2, 3, 2, 2]), (0, [1] * 9)]
)
def test_with_too_few_places_a_text_is_read_in_smaller_parts(places: int, together: list[int]) -> None:
    text = Text(102, 102, places)
    assert len(text.read(WindowLimits(0, 10))) == 10
    assert [len(numbers) for numbers in text.asked] == together


def test_no_more_windows_are_asked_for_together_than_a_call_holds() -> None:
    model = replace(MODEL, max_tokens=512)
    asked: list[int] = []

    async def classify(windows: Sequence[ModelInput]) -> list[Answer]:
        asked.append(len(windows))
        ends = 20 * 510 + 2
        numbers = [window.number for window in windows if isinstance(window, Window)]
        return [RawScores((0.0, 0.0), ends - number * 510) for number in numbers]

    first = RawScores((0.0, 0.0), 20 * 510 + 2)
    plan = WindowPlan(model, WindowLimits(0, 16))
    asyncio.run(plan.read(TEXT, first, classify, Text(0, 0).reserve))
    assert asked == [8, 7]


class Slow:
    """A source that takes longer than the deadline, and whose texts all have four windows."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []
        self.open = self.most_open = 0

    async def classify(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[Answer]:
        self.deadlines.append(deadline_s)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(0.02)
        self.open -= 1
        numbers = [text.number if isinstance(text, Window) else 0 for text in texts]
        return [RawScores((0.0, 0.0), 42 - number * 10) for number in numbers]

    def ask(self, deadline_s: float, *, per_call: bool) -> None:
        predictor = Predictor(self, windows=WindowLimits(0, 9), deadline_per_call=per_call)
        requests = [TextRequest(f"text {number}") for number in range(9)]
        options = CallOptions(long_texts="window")
        for answer in asyncio.run(predictor.answer_all(MODEL, requests, deadline_s, options)):
            assert isinstance(answer, Classification)
            assert answer.windows == 4


def test_each_call_for_requests_that_can_wait_has_the_whole_deadline() -> None:
    slow = Slow()
    slow.ask(0.01, per_call=True)
    assert slow.deadlines == [0.01] * 10
    assert slow.most_open == 1
    slow = Slow()
    slow.ask(0.01, per_call=False)
    assert slow.deadlines[1:] == [0.0] * 9


def test_a_few_texts_of_a_batch_are_read_at_the_same_time() -> None:
    slow = Slow()
    slow.ask(9.0, per_call=False)
    assert slow.most_open == 4


def test_an_overlap_is_at_most_half_a_window() -> None:
    text = Text(40, 40)
    text.read(WindowLimits(9, 100))
    assert text.overlaps == {5}
    tiny = replace(MODEL, max_tokens=3)
    assert WindowPlan(tiny, WindowLimits(64, 100)).known(6) == 4


def test_only_classifiers_with_known_special_tokens_have_windows() -> None:
    assert reads_windows(MODEL)
    assert not reads_windows(replace(MODEL, special_tokens=None))
    assert not reads_windows(replace(MODEL, task=Task.RERANK))
    assert reads_windows(replace(MODEL, special_tokens=0))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (RawScores((0.0, 0.0), 0), BackendFailed),
        (RawScores((0.0, 0.0), 25), BackendFailed),  # of a tokenizer without windows: as the whole text
        (Overloaded(), Overloaded),
    ],
)
def test_a_window_without_an_answer_fails_the_text(answer: Answer, error: type[AiError]) -> None:
    async def classify(windows: Sequence[ModelInput]) -> list[Answer]:
        return [answer for _ in windows]

    text = Text(25, 25)
    plan = WindowPlan(MODEL, WindowLimits(0, 9))
    with pytest.raises(error):
        asyncio.run(plan.read(TEXT, text.first, classify, text.reserve))


def test_probabilities_are_weighted_by_tokens() -> None:
    scores = [[("A", 1.0), ("B", 0.0)], [("A", 0.0), ("B", 0.25)]]
    assert combine(scores, [3, 1]) == [("A", 0.75), ("B", 0.0625)]
    assert combine(scores[:1], [7]) == scores[0]


def test_windows_are_bytes_that_nothing_else_is() -> None:
    windows = [
        Window(text, number, overlap, most, 9)
        for text in (b"", b"a", b"ab")
        for number in (0, 1)
        for overlap in (0, 1)
        for most in (2, 3)
    ]
    assert len({bytes(window) for window in windows}) == len(windows)
    for window in windows:
        with pytest.raises(UnicodeDecodeError):
            bytes(window).decode()
        assert len(window) == 9

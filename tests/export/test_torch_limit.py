"""How the longest input is found; what real models answer is in tests/parity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.checkpoint.torch_model import _search


def search(limit: int, fewest: int, most: int, guesses: list[int]) -> tuple[int, list[int]]:
    """What is found for a model that takes ``limit`` tokens, and which lengths were tried."""
    tried: list[int] = []

    def failure_at(length: int) -> Exception | None:
        assert fewest <= length <= most
        tried.append(length)
        return None if length <= limit else IndexError("index out of range in self")

    return _search(failure_at, fewest, most, guesses)[0], tried


@pytest.mark.parametrize(
    ("limit", "tried"),
    [(514, [514]), (512, [514, 512, 513]), (600, [514])],
)
def test_the_limit_itself_is_tried_first_and_then_what_counting_from_padding_leaves(
    limit: int, tried: list[int]
) -> None:
    assert search(limit, 3, 514, [512, 513]) == (min(limit, 514), tried)


@given(
    st.integers(0, 700), st.integers(1, 40), st.integers(40, 600), st.lists(st.integers(-5, 700), max_size=2)
)
def test_any_limit_is_found_exactly(limit: int, fewest: int, most: int, guesses: list[int]) -> None:
    found, tried = search(limit, fewest, most, guesses)
    assert found == max(min(limit, most), fewest - 1)
    assert len(tried) <= 13


def test_a_limit_that_special_tokens_fill_is_not_tried() -> None:
    assert search(512, 4, 3, []) == (3, [])

"""Under which keys the cache keeps answers."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cache import _Served
from gateway.domain.inputs import ModelInput, Pair, Window
from tests.gateway.domain.test_cache import MODEL

SHORT = st.binary(max_size=3)
NUMBERS = st.integers(0, 2)
WINDOWS = st.builds(Window, SHORT, NUMBERS, NUMBERS, NUMBERS, st.just(9))
SERVED = _Served(MODEL, 1)


@given(st.lists(SHORT | st.builds(Pair, SHORT, SHORT) | WINDOWS))
def test_the_key_of_an_input_does_not_depend_on_others(inputs: list[ModelInput]) -> None:
    assert SERVED.keys(inputs) == [key for data in inputs for key in SERVED.keys([data])]


@given(st.lists(st.builds(Pair, SHORT, SHORT)))
def test_keys_of_pairs_differ_where_the_pairs_do(pairs: list[Pair]) -> None:
    assert len(set(SERVED.keys(pairs))) == len(set(pairs))


@given(st.lists(st.text(max_size=3).map(str.encode) | WINDOWS))
def test_keys_of_texts_and_windows_differ_where_these_do(inputs: list[ModelInput]) -> None:
    assert len(set(SERVED.keys(inputs))) == len(set(inputs))


def test_a_query_that_pairs_share_is_hashed_once() -> None:
    query = b"word " * 200_000

    def seconds(count: int) -> float:
        began = time.perf_counter()
        assert len(set(SERVED.keys([Pair(query, b"%d" % place) for place in range(count)]))) == count
        return time.perf_counter() - began

    assert min(seconds(100) for _ in range(3)) < 10 * min(seconds(1) for _ in range(3))

"""Under which keys the cache keeps answers."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cache import _Served
from gateway.domain.inputs import ModelInput, Pair
from tests.gateway.domain.test_cache import MODEL

SHORT = st.binary(max_size=3)
SERVED = _Served(MODEL, 1)


@given(st.lists(SHORT | st.builds(Pair, SHORT, SHORT)))
def test_the_key_of_an_input_does_not_depend_on_others(inputs: list[ModelInput]) -> None:
    assert SERVED.keys(inputs) == [key for data in inputs for key in SERVED.keys([data])]


@given(st.lists(st.builds(Pair, SHORT, SHORT)))
def test_keys_of_pairs_differ_where_the_pairs_do(pairs: list[Pair]) -> None:
    assert len(set(SERVED.keys(pairs))) == len(set(pairs))


def test_a_query_that_pairs_share_is_hashed_once() -> None:
    query = b"word " * 200_000

    def seconds(count: int) -> float:
        began = time.perf_counter()
        assert len(set(SERVED.keys([Pair(query, b"%d" % place) for place in range(count)]))) == count
        return time.perf_counter() - began

    assert min(seconds(100) for _ in range(3)) < 10 * min(seconds(1) for _ in range(3))

"""How long to wait for a rate."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.rate_limit import RateLimit
from gateway.domain.errors import RateLimited

A_MOMENT_S = 0.02
LEAST_S = 0.1


class _Clock:
    """In place of the module ``time`` of the library."""

    now = 1_000_000_000.0

    def time(self) -> float:
        return self.now


async def _wait_s(rate: RateLimit, texts: int) -> float | None:
    """Seconds that a refusal asks for, None for none."""
    try:
        await rate.spend("account", texts)
    except RateLimited as exc:
        return exc.retry_after_s or 0.0
    return None


async def _play(allowed: int, steps: list[tuple[float, int]]) -> None:
    clock = _Clock()
    with patch("limits.aio.storage.memory.time", clock):
        rate = RateLimit(allowed, tuple)
        for pause_s, texts in steps:
            clock.now += pause_s
            wait_s = await _wait_s(rate, min(texts, allowed))
            if wait_s is None:
                continue
            if wait_s > LEAST_S:
                clock.now += wait_s - A_MOMENT_S
                wait_s = await _wait_s(rate, min(texts, allowed))
                assert wait_s is not None, "it could have come earlier"
            clock.now += wait_s
            assert await _wait_s(rate, min(texts, allowed)) is None


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 130), st.integers(1, 50)), min_size=1, max_size=20),
)
def test_the_first_retry_after_the_wait_passes_and_an_earlier_one_does_not(
    allowed: int, steps: list[tuple[float, int]]
) -> None:
    asyncio.run(_play(allowed, steps))


async def test_a_refusal_counts_nothing() -> None:
    with patch("limits.aio.storage.memory.time", _Clock()):
        rate = RateLimit(4, tuple)
        assert await _wait_s(rate, 3) is None
        for _ in range(5):
            assert await _wait_s(rate, 2) is not None
        assert await _wait_s(rate, 1) is None


@pytest.mark.parametrize("texts", [1, 1000])
async def test_without_a_rate_everything_passes(texts: int) -> None:
    rate = RateLimit(0, tuple)
    assert [await _wait_s(rate, texts) for _ in range(100)] == [None] * 100

"""Options of a call to the answer cache: a lifetime for what it adds, and the way past it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.backend import RawScores
from gateway.domain.cache import AnswerCache, Lookup
from gateway.domain.options import CallOptions
from tests.gateway.domain.test_cache import LONG_S, MODEL, ROOMY, Source, truth
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_an_answer_with_a_lifetime_is_kept_that_long_and_no_longer() -> None:
    source = Source()
    cache = AnswerCache(source, ROOMY)
    cache.serve([MODEL])

    async def ask(*texts: bytes, **options: Any) -> list[bool | None]:
        answers = await cache.classify(MODEL, texts, LONG_S, CallOptions(**options))
        assert answers == [
            replace(truth(MODEL, text), cached=answer.cached)
            for text, answer in zip(texts, answers, strict=True)
            if isinstance(answer, RawScores)
        ]
        return [answer.cached for answer in answers if isinstance(answer, RawScores)]

    assert await ask(b"a", b"b", cache_ttl_s=60) == [False, False]
    size = cache.size_bytes
    assert await ask(b"c") == [False]
    await asyncio.sleep(59)
    assert await ask(b"a", cache_ttl_s=3600) == [True]  # an entry keeps the lifetime that it has
    assert await ask(b"a", b"b", b"c") == [True, True, True]
    await asyncio.sleep(1)
    assert await ask(b"a", b"b", b"c", cache_ttl_s=1) == [False, False, True]
    await asyncio.sleep(1)
    assert await ask(b"a", b"c") == [False, True]
    await asyncio.sleep(10**6)
    assert await ask(b"a", b"c") == [True, True]
    assert await ask(b"b") == [False]
    assert len(cache) == 3
    assert cache.size_bytes == size * 3 / 2 - 3 * 8  # a time takes eight bytes, and none is left


@in_virtual_time
async def test_an_entry_that_expired_among_the_old_ones_leaves_nothing_behind() -> None:
    source = Source()
    one = AnswerCache(source, ROOMY)
    one.serve([MODEL])
    await one.classify(MODEL, [b"a"], LONG_S, CallOptions(cache_ttl_s=5))
    cache = AnswerCache(source, one.size_bytes * 4)
    cache.serve([MODEL])
    for text in (b"a", b"b", b"c"):  # the third moves the others to the old half
        await cache.classify(MODEL, [text], LONG_S, CallOptions(cache_ttl_s=5))
    assert len(cache) == 3
    await asyncio.sleep(5)
    for text in (b"a", b"b", b"c"):
        (answer,) = await cache.classify(MODEL, [text], LONG_S, CallOptions(cache_ttl_s=5))
        assert isinstance(answer, RawScores)
        assert not answer.cached
    assert cache.size_bytes <= one.size_bytes * 4
    assert cache.size_bytes == one.size_bytes * len(cache)


@pytest.mark.parametrize("options", [CallOptions(skip_cache=True), CallOptions(cache_ttl_s=0)])
async def test_a_call_past_the_cache_neither_reads_nor_fills_it(options: CallOptions) -> None:
    source = Source()
    looked_up: list[Lookup] = []
    cache = AnswerCache(source, ROOMY, looked_up.append)
    cache.serve([MODEL])
    await cache.classify(MODEL, [b"a"], LONG_S)
    answers = await cache.classify(MODEL, [b"a", b"b"], LONG_S, options)
    assert [answer.cached for answer in answers if isinstance(answer, RawScores)] == [False, False]
    assert source.answered == {(MODEL, b"a"): 2, (MODEL, b"b"): 1}
    assert (len(cache), looked_up) == (1, ["miss"])

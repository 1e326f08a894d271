"""The answer cache: the same answers as without it, within its bound, and no request waits for ever."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.backend import Answer, RawScores
from gateway.domain.cache import AnswerCache, Lookup
from gateway.domain.catalogue import Model
from gateway.domain.errors import BackendFailed, DeadlineExceeded, Overloaded
from gateway.domain.scores import ProblemType

MODEL = Model("@cf/a/b", "a", ("NEGATIVE", "POSITIVE"), 512, ProblemType.SINGLE_LABEL, model_sha256="1")
NEXT = replace(MODEL, model_sha256="2")
OTHER = replace(MODEL, name="@cf/a/c")
ROOMY = 1 << 20
LONG_S = 30.0


def truth(model: Model, text: bytes) -> RawScores:
    """The answer of a model to a text; each model has its own."""
    number = float(
        len(model.name + model.model_sha256) + sum(model.name.encode() + model.model_sha256.encode())
    )
    return RawScores(
        (number, *(float(len(text) * place) for place in range(1, len(model.labels)))), len(text)
    )


@dataclass
class Source:
    """Answers each text after some turns of the loop, or on an event; fails on demand."""

    script: list[tuple[int, type[Exception] | None]] = field(default_factory=list)
    """Turns and failure of the next texts, the next one first; afterwards all are answered at once."""
    gate: asyncio.Event | None = None
    asked: list[tuple[Model, bytes]] = field(default_factory=list)
    answered: Counter[tuple[Model, bytes]] = field(default_factory=Counter)
    running: set[tuple[Model, bytes]] = field(default_factory=set)
    retired: list[Model] = field(default_factory=list)
    """Models whose answers are not kept any more, so that nothing is shared either."""
    unlike: Callable[[bytes], RawScores] | None = None

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> list[Answer]:
        return [await self._answer(model, text) for text in texts]

    async def _answer(self, model: Model, text: bytes) -> Answer:
        asked = (model, text)
        assert model in self.retired or asked not in self.running, "it is being computed already"
        self.asked.append(asked)
        self.running.add(asked)
        turns, failure = self.script.pop(0) if self.script else (0, None)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running.discard(asked)
        if failure is not None:
            answer = failure()
            assert isinstance(answer, BackendFailed | DeadlineExceeded | Overloaded)
            return answer
        self.answered[asked] += 1
        return self.unlike(text) if self.unlike else truth(model, text)


def cache_over(source: Source, max_bytes: int = ROOMY, **observers: Any) -> AnswerCache:
    cache = AnswerCache(source, max_bytes, **observers)
    cache.serve([MODEL])
    return cache


async def ask(
    cache: AnswerCache, *texts: bytes, model: Model = MODEL, within_s: float = LONG_S
) -> list[Answer]:
    return await asyncio.wait_for(cache.classify(model, texts, within_s), 60)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def hit(text: bytes, model: Model = MODEL) -> RawScores:
    return replace(truth(model, text), cached=True)


def miss(text: bytes, model: Model = MODEL) -> RawScores:
    return replace(truth(model, text), cached=False)


async def test_a_text_that_comes_again_is_not_computed_again() -> None:
    source = Source()
    cache = cache_over(source)
    assert await ask(cache, b"a") == [miss(b"a")]
    assert await ask(cache, b"a") == [hit(b"a")]
    assert source.asked == [(MODEL, b"a")]


async def test_each_text_of_a_batch_is_looked_up_by_itself() -> None:
    source = Source()
    cache = cache_over(source)
    await ask(cache, b"b")
    assert await ask(cache, b"a", b"b", b"c", b"a") == [miss(b"a"), hit(b"b"), miss(b"c"), hit(b"a")]
    assert await ask(cache, b"a", b"b") == [hit(b"a"), hit(b"b")]
    assert [text for _, text in source.asked] == [b"b", b"a", b"c"]
    assert await ask(cache) == []


async def test_a_text_of_one_byte_more_is_another() -> None:
    source = Source()
    cache = cache_over(source)
    for text in (b"a", b"a ", b"A", b"", b"\0", b"\0\0"):
        assert await ask(cache, text) == [miss(text)]


async def test_what_was_used_lately_stays_and_the_rest_makes_room() -> None:
    gone: list[int] = []
    one = cache_over(Source())
    await ask(one, b"a")
    room_for_four = cache_over(Source(), 4 * one.size_bytes, evicted=gone.append)
    for text in (b"a", b"b", b"c", b"a", b"d"):
        await ask(room_for_four, text)
    assert sum(gone) == 1
    assert await ask(room_for_four, b"a", b"d") == [hit(b"a"), hit(b"d")]
    assert await ask(room_for_four, b"b") == [miss(b"b")]


@given(st.lists(st.integers(0, 40), max_size=300))
def test_the_half_of_the_entries_that_was_used_last_is_kept(numbers: list[int]) -> None:
    async def scene() -> None:
        one = cache_over(Source())
        await ask(one, b"a")
        cache = cache_over(Source(), 20 * one.size_bytes)
        used: list[int] = []
        for number in numbers:
            (answer,) = await ask(cache, b"%d" % number)
            assert isinstance(answer, RawScores)
            assert answer.cached or number not in used[-10:]
            used = [*(other for other in used if other != number), number]
            assert len(cache) <= 20

    asyncio.run(scene())


async def test_what_is_larger_than_the_bound_is_not_kept_and_displaces_nothing() -> None:
    wide = replace(OTHER, labels=tuple(map(str, range(100))))
    cache = AnswerCache(Source(), 1000)
    cache.serve([MODEL, wide])
    await ask(cache, b"a")
    for _ in range(2):
        assert await ask(cache, b"a", model=wide) == [miss(b"a", wide)]
    assert await ask(cache, b"a") == [hit(b"a")]


async def test_a_changed_model_starts_empty_and_the_others_keep_theirs() -> None:
    cache = AnswerCache(Source(), ROOMY)
    cache.serve([MODEL, OTHER])
    await ask(cache, b"a", b"b")
    await ask(cache, b"a", model=OTHER)
    cache.serve([OTHER, NEXT])
    assert len(cache) == 1
    assert await ask(cache, b"a", model=NEXT) == [miss(b"a", NEXT)]
    assert await ask(cache, b"a", model=OTHER) == [hit(b"a", OTHER)]
    cache.serve([])
    assert (len(cache), cache.size_bytes) == (0, 0)


async def test_a_refresh_without_changes_forgets_nothing() -> None:
    cache = cache_over(Source())
    await ask(cache, b"a")
    cache.serve([MODEL])
    assert await ask(cache, b"a") == [hit(b"a")]


async def test_an_answer_of_a_model_that_was_replaced_meanwhile_is_not_kept() -> None:
    source = Source(gate=asyncio.Event())
    cache = cache_over(source)
    asking = asyncio.create_task(ask(cache, b"a"))
    await turns()
    cache.serve([NEXT])
    assert source.gate
    source.gate.set()
    assert await asking == [miss(b"a")]
    assert await ask(cache, b"b") == [miss(b"b")]  # a request that found the old model
    assert len(cache) == 0


@pytest.mark.parametrize("failure", [BackendFailed, DeadlineExceeded, Overloaded])
async def test_an_error_is_not_kept(failure: type[Exception]) -> None:
    cache = cache_over(Source(script=[(0, failure)]))
    (answer,) = await ask(cache, b"a")
    assert isinstance(answer, failure)
    assert await ask(cache, b"a") == [miss(b"a")]


@pytest.mark.parametrize("logits", [(math.nan, 0.0), (0.0, math.inf), (0.0,), (0.0, 1.0, 2.0)])
async def test_what_makes_no_scores_is_not_kept(logits: tuple[float, ...]) -> None:
    cache = cache_over(Source(unlike=lambda text: RawScores(logits, 3)))
    await ask(cache, b"a")
    assert len(cache) == 0


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    st.integers(0, 1 << 31),
)
def test_what_is_kept_is_exact(logits: list[float], tokens: int) -> None:
    async def scene() -> None:
        cache = cache_over(Source(unlike=lambda text: RawScores(tuple(logits), tokens)))
        for cached in (False, True):
            assert repr(await ask(cache, b"a")) == repr([RawScores(tuple(logits), tokens, cached)])

    asyncio.run(scene())


async def _started(*asking: Coroutine[Any, Any, list[Answer]]) -> list[asyncio.Task[list[Answer]]]:
    tasks = []
    for one in asking:
        tasks.append(asyncio.create_task(one))
        await turns()
    return tasks


async def test_texts_that_are_alike_and_in_flight_are_computed_once() -> None:
    source, looked_up = Source(gate=asyncio.Event()), list[Lookup]()
    cache = cache_over(source, looked_up=looked_up.append)
    tasks = await _started(*(ask(cache, b"a") for _ in range(3)), ask(cache, b"b", b"a"))
    assert source.gate
    source.gate.set()
    assert await asyncio.gather(*tasks) == [[miss(b"a")]] * 3 + [[miss(b"b"), miss(b"a")]]
    assert source.answered == {(MODEL, b"a"): 1, (MODEL, b"b"): 1}
    await ask(cache, b"a")
    assert Counter(looked_up) == {"miss": 2, "shared": 3, "hit": 1}


async def test_when_the_first_goes_away_a_waiting_request_takes_its_place() -> None:
    source = Source(gate=asyncio.Event())
    cache = cache_over(source)
    first, *others = await _started(*(ask(cache, b"a") for _ in range(4)))
    first.cancel()
    await turns()
    assert len(source.asked) == 2
    assert not any(other.done() for other in others)
    assert source.gate
    source.gate.set()
    assert await asyncio.gather(*others) == [[miss(b"a")]] * 3
    assert source.answered == {(MODEL, b"a"): 1}


async def test_when_the_first_runs_out_of_time_the_others_do_not() -> None:
    source = Source(script=[(10, DeadlineExceeded)])
    cache = cache_over(source)
    first, second = await asyncio.gather(ask(cache, b"a"), ask(cache, b"a"))
    assert isinstance(first[0], DeadlineExceeded)
    assert second == [miss(b"a")]


async def test_who_waits_and_goes_away_does_not_disturb_the_first() -> None:
    source = Source(gate=asyncio.Event())
    cache = cache_over(source)
    first, second, third = await _started(*(ask(cache, b"a") for _ in range(3)))
    second.cancel()
    await turns()
    assert source.gate
    source.gate.set()
    assert [await first, await third] == [[miss(b"a")]] * 2
    assert second.cancelled()


async def test_who_waits_waits_no_longer_than_its_own_deadline() -> None:
    source = Source(gate=asyncio.Event())
    cache = cache_over(source)
    first, second = await _started(ask(cache, b"a"), ask(cache, b"a", within_s=0.05))
    (answer,) = await second
    assert isinstance(answer, DeadlineExceeded)
    assert not first.done()
    assert source.gate
    source.gate.set()
    assert await first == [miss(b"a")]


async def test_a_batch_that_goes_away_leaves_nothing_running() -> None:
    source = Source(gate=asyncio.Event())
    cache = cache_over(source)
    (batch,) = await _started(ask(cache, b"a", b"b", b"a"))
    assert len(source.running) == 2
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert not source.running


FAULTS = st.sampled_from([None, None, BackendFailed, DeadlineExceeded, Overloaded])
TEXTS = st.sampled_from([b"", b"a", b"bb", b"ccc", b"dddd"])
REQUEST = st.tuples(
    st.integers(0, 12),  # the turn of the loop in which it comes
    st.lists(TEXTS, min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 8)),  # after how many turns its caller hangs up
)


@settings(max_examples=300, deadline=None)
@given(
    requests=st.lists(REQUEST, min_size=1, max_size=12),
    script=st.lists(st.tuples(st.integers(0, 6), FAULTS), max_size=30),
    reload_at=st.one_of(st.none(), st.integers(0, 12)),
    max_bytes=st.sampled_from([0, 500, 1000, ROOMY]),
)
def test_in_any_order_and_interleaving_answers_are_those_without_a_cache(
    requests: list[tuple[int, list[bytes], int | None]],
    script: list[tuple[int, type[Exception] | None]],
    reload_at: int | None,
    max_bytes: int,
) -> None:
    asyncio.run(_scene(requests, script, reload_at, max_bytes))


async def _scene(
    requests: list[tuple[int, list[bytes], int | None]],
    script: list[tuple[int, type[Exception] | None]],
    reload_at: int | None,
    max_bytes: int,
) -> None:
    faults = {failure for _, failure in script if failure}
    source = Source(script=script)
    cache: AnswerCache = cache_over(
        source, max_bytes, looked_up=lambda result: _within_bound(cache, max_bytes)
    )
    served = MODEL

    async def request(at: int, texts: list[bytes], hangs_up: int | None) -> None:
        await turns(at)
        model = served
        asking = asyncio.create_task(ask(cache, *texts, model=model))
        if hangs_up is not None:
            await turns(hangs_up)
            asking.cancel()
        await asyncio.wait((asking,))
        if asking.cancelled():
            assert hangs_up is not None
            return
        for text, answer in zip(texts, asking.result(), strict=True):
            if isinstance(answer, RawScores):
                assert replace(answer, cached=None) == truth(model, text)
            else:
                assert type(answer) in faults

    async def reload() -> None:
        nonlocal served
        if reload_at is not None:
            await turns(reload_at)
            served = NEXT
            source.retired.append(MODEL)
            cache.serve([NEXT])

    await asyncio.gather(reload(), *(request(*one) for one in requests))
    assert not source.running
    _within_bound(cache, max_bytes)
    if max_bytes == ROOMY:
        assert all(number == 1 for (model, _), number in source.answered.items() if model is served)
        assert len(cache) == len([model for model, _ in source.answered if model is served])
    source.script.clear()
    for text in (b"", b"a", b"bb", b"ccc", b"dddd"):
        (answer,) = await ask(cache, text, model=served)
        assert replace(answer, cached=None) == truth(served, text)  # type: ignore[type-var]


def _within_bound(cache: AnswerCache, max_bytes: int) -> None:
    assert 0 <= cache.size_bytes <= max_bytes
    assert (cache.size_bytes == 0) == (len(cache) == 0)


FILLING = """
import asyncio, gc, resource, sys
from gateway.domain.backend import RawScores
from gateway.domain.cache import AnswerCache
from tests.gateway.domain.test_cache import MODEL, replace

labels, bound, texts = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
model = replace(MODEL, labels=tuple(map(str, range(labels))))

class Source:
    async def classify(self, model, texts, deadline_s):
        return [RawScores(tuple(float(len(texts[0]) + n) for n in range(labels)), 1000)]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

async def main():
    cache = AnswerCache(Source(), bound)
    cache.serve([model])
    gc.collect()
    before = resident()
    for number in range(texts):
        await cache.classify(model, (b"%d" % number,), 1.0)
    print(len(cache), cache.size_bytes, resident() - before)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("labels", "bound", "texts"),
    [(2, 1 << 30, 100_000), (28, 1 << 30, 100_000), (2, 22_200_000, 400_000)],
    ids=["two labels", "28 labels", "entries come and go"],
)
def test_memory_grows_as_estimated(labels: int, bound: int, texts: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLING, str(labels), str(bound), str(texts)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    entries, estimated, grown = map(int, done.stdout.split())
    assert entries == 100_000
    assert estimated * 0.75 < grown < estimated * 1.25, (estimated, grown)


async def test_a_text_that_finds_no_room_does_not_take_the_others_of_its_batch_along() -> None:
    class Crowded(Source):
        async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> list[Answer]:
            if b"late" in texts:
                raise Overloaded
            return [truth(model, text) for text in texts]

    cache = AnswerCache(Crowded(), ROOMY)
    cache.serve([MODEL])
    first, late, last = await cache.classify(MODEL, [b"a", b"late", b"b"], LONG_S)
    assert isinstance(late, Overloaded)
    assert (first, last) == tuple(replace(truth(MODEL, text), cached=False) for text in (b"a", b"b"))

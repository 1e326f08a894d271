"""Runs batches of a real store: takeovers, defects, a store that is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.batches import codec
from gateway.batches import runner as runner_module
from gateway.batches.idle_source import ModelNotReady
from gateway.batches.queue import BatchQueue, FetchedBatch
from gateway.batches.runner import BatchRunner, RunnerEvents
from gateway.batches.sqlite_store import SqliteStore
from gateway.batches.store import BatchStore, BatchSummary, ClaimedBatch, NewBatch, StoreStats
from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Ensemble, Model, parse_model
from gateway.domain.errors import (
    BackendFailed,
    BackendUnavailable,
    BadInput,
    BatchStoreUnavailable,
    NoSuchModel,
)
from gateway.domain.inputs import ModelInput
from gateway.domain.requests import BatchRequest, TextRequest
from gateway.domain.service import Classification, Predictor
from tests.gateway.batches.conftest import ROOMY
from tests.gateway.domain.test_catalogue import GOOD

MODEL = parse_model(Ensemble("e", GOOD, max_batch_size=64))
UNHEALTHY = replace(MODEL, name="@cf/un/healthy")
OTHER = replace(MODEL, name="@cf/an/other")
MODELS = {model.name: model for model in (MODEL, OTHER, UNHEALTHY)}


@dataclass
class Source:
    """Answers with a token count that tells who did, and waits where told."""

    tokens: int = 3
    release: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[bytes] = field(default_factory=list)
    not_ready: int = 0
    """Calls that find the model not ready."""

    async def classify(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[Answer]:
        self.asked += [bytes(text) for text in texts]
        if self.not_ready:
            self.not_ready -= 1
            raise ModelNotReady
        await self.release.wait()
        return [RawScores((0.0, 1.0), self.tokens) for _ in texts]


class Events(RunnerEvents):
    def __init__(self) -> None:
        self.summaries: list[BatchSummary] = []

    def finished(self, summary: BatchSummary) -> None:
        self.summaries.append(summary)


@asynccontextmanager
async def running(
    store: BatchStore, source: Source, events: Events | None = None
) -> AsyncIterator[BatchRunner]:
    def find(name: str) -> Model:
        if name not in MODELS:
            raise NoSuchModel(name)
        return MODELS[name]

    def is_available(model: Model) -> bool:
        return model is not UNHEALTHY

    runner = BatchRunner(
        store, lambda options: Predictor(source), find, lambda: True, is_available, 1.0, events or Events()
    )
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        source.release.set()
        await runner.stop(task)


async def submit(store: BatchStore, *texts: str, model: str = MODEL.name) -> str:
    queue = BatchQueue(store, lambda account: account)
    requests = [BatchRequest(str(place), TextRequest(text)) for place, text in enumerate(texts)]
    return (await queue.submit(await queue.prepare("a", "a", model, requests))).id


async def result(store: BatchStore, batch_id: str, timeout_s: float = 15) -> FetchedBatch:
    async def fetched() -> FetchedBatch:
        queue = BatchQueue(store, lambda account: account)
        while not isinstance(found := await queue.fetch("a", batch_id), FetchedBatch):
            await asyncio.sleep(0.02)
        return found

    return await asyncio.wait_for(fetched(), timeout_s)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path, ROOMY)
    yield store
    await store.close()


async def test_a_batch_that_two_runners_run_has_the_result_of_the_first_that_saves(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a machine was suspended for longer than a lease, and wakes up."""
    monkeypatch.setattr(runner_module, "LEASE_S", 0.3)
    monkeypatch.setattr(runner_module.BatchRunner, "_renew", lambda self, batch: asyncio.sleep(3600))
    slow, quick, events = Source(tokens=7), Source(tokens=3), Events()
    quick.release.set()
    batch_id = await submit(store, "one", "two")
    async with running(store, slow, events):
        await asyncio.sleep(0.2)
        assert slow.asked == [b"one", b"two"]
        async with running(store, quick, events):
            first = await result(store, batch_id)
            slow.release.set()
            await asyncio.sleep(0.3)
    assert quick.asked == [b"one", b"two"]
    again = await result(store, batch_id)
    assert again == first
    assert [item.outcome.tokens for item in again.items if isinstance(item.outcome, Classification)] == [3, 3]
    assert len(events.summaries) == 1


async def test_a_runner_keeps_its_batch_for_as_long_as_it_takes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LEASE_S", 0.3)
    slow, other = Source(), Source()
    other.release.set()
    batch_id = await submit(store, "one")
    async with running(store, slow):
        await asyncio.sleep(0.2)
        async with running(store, other):
            await asyncio.sleep(1.5)
            assert other.asked == []
            slow.release.set()
            await result(store, batch_id)


async def test_a_runner_that_has_lost_its_lease_drops_the_batch(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LEASE_S", 1.0)
    slow = Source()
    await submit(store, "one")
    async with running(store, slow):
        await asyncio.sleep(0.05)
        await store._run(
            lambda db: db.execute("UPDATE batches SET owner = 'another', leased_until = leased_until + 0.9"),
            None,
        )
        second = await submit(store, "two")
        await asyncio.sleep(0.5)
        slow.release.set()
        await result(store, second)
    assert slow.asked == [b"one", b"two"]


async def test_a_batch_that_cannot_be_read_does_not_hold_up_the_others(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    source.release.set()
    await store.submit(NewBatch("broken", "a", "a", MODEL.name, 1, [b"not json"]))
    batch_id = await submit(store, "one")
    async with running(store, source):
        await result(store, batch_id)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "a queued batch could not be run"
    ]


async def test_a_chunk_that_always_fails_has_an_outcome_in_the_end(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "LEASE_S", 0.2)
    monkeypatch.setattr(runner_module, "_POLL_S", 0.05)
    source = Source()
    source.release.set()
    broken = str(uuid4())
    fine = codec.encode_inputs([BatchRequest("2", TextRequest("two"))])
    await store.submit(NewBatch(broken, "a", "a", MODEL.name, 2, [b'[["from the future","1",{}]]', fine]))
    async with running(store, source):
        first, second = (await result(store, broken)).items
    assert first.reference == "1"
    assert isinstance(first.outcome, BackendFailed)
    assert isinstance(second.outcome, Classification)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        *["a queued batch could not be run"] * (runner_module.MAX_TRIES - 1),
        f"a chunk of batch {broken} failed for the last time",
    ]


async def test_what_was_computed_is_saved_when_the_store_is_back(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_RETRY_S", 0.05)
    source, save, left = Source(), store.save, 3

    async def failing(batch_id: str, place: int, outcomes: bytes, failed: int) -> None:
        nonlocal left
        if left:
            left -= 1
            raise BatchStoreUnavailable
        await save(batch_id, place, outcomes, failed)

    monkeypatch.setattr(store, "save", failing)
    source.release.set()
    batch_id = await submit(store, "one")
    async with running(store, source):
        assert len((await result(store, batch_id)).items) == 1
    assert (left, source.asked) == (0, [b"one"])


async def test_a_batch_whose_model_is_away_leaves_the_others_their_turn(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_NOT_READY_S", 0.6)
    source = Source(not_ready=1)
    source.release.set()
    first, second = await submit(store, "one"), await submit(store, "two", model=OTHER.name)
    gone = await submit(store, "three", model="@cf/gone/gone")
    async with running(store, source):
        await result(store, second)
        await result(store, first)
    assert source.asked == [b"one", b"two", b"one"]
    found = await BatchQueue(store, lambda account: account).fetch("a", gone)
    assert not isinstance(found, FetchedBatch)


@pytest.mark.parametrize("absent", [UNHEALTHY.name, "@cf/gone/gone"])
async def test_batches_of_a_model_that_is_not_ready_are_left_alone_together(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    """However many there are: their chunks are not read, and other batches have their turn at once."""
    read: list[str] = []
    claimed: list[str] = []
    inputs, claim = store.inputs, store.claim

    async def noted_inputs(batch_id: str, place: int) -> bytes | None:
        read.append(batch_id)
        return await inputs(batch_id, place)

    async def noted_claim(owner: str, lease_s: float, skip: Collection[str] = ()) -> ClaimedBatch | None:
        batch = await claim(owner, lease_s, skip)
        claimed.extend([] if batch is None else [batch.model])
        return batch

    monkeypatch.setattr(store, "inputs", noted_inputs)
    monkeypatch.setattr(store, "claim", noted_claim)
    source = Source()
    source.release.set()
    for number in range(30):
        await submit(store, f"{number}", model=absent)
    batch_id = await submit(store, "one")
    async with running(store, source):
        await result(store, batch_id, timeout_s=4)
    assert read == [batch_id]
    assert claimed == [absent, MODEL.name]


async def test_a_model_that_never_answers_beside_others_fails_its_batches(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_NOT_READY_S", 0.1)
    monkeypatch.setattr(runner_module, "_POLL_S", 0.05)
    monkeypatch.setattr(runner_module, "MISSING_S", 0.5)
    source = Source()
    batch_id = await submit(store, "one", model=UNHEALTHY.name)
    began = time.monotonic()
    async with running(store, source):
        (item,) = (await result(store, batch_id)).items
    assert time.monotonic() - began >= 0.5
    assert isinstance(item.outcome, BackendUnavailable)
    assert source.asked == []


async def test_a_model_that_was_gone_once_has_its_time_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_NOT_READY_S", 0.1)
    monkeypatch.setattr(runner_module, "_POLL_S", 0.05)
    monkeypatch.setattr(runner_module, "_FORGET_S", 0.5)
    monkeypatch.setattr(runner_module, "MISSING_S", 1.0)
    queue, source = BatchQueue(store, lambda account: account), Source()
    first = await submit(store, "one", model="@cf/gone/gone")
    async with running(store, source):
        (item,) = (await result(store, first)).items
        assert isinstance(item.outcome, NoSuchModel)
        await asyncio.sleep(0.7)
        second = await submit(store, "two", model="@cf/gone/gone")
        await asyncio.sleep(0.6)
        assert not isinstance(await queue.fetch("a", second), FetchedBatch)
        await result(store, second)


async def test_the_store_is_maintained_whatever_ends_a_job(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "_STATS_S", 0.05)
    errors: list[Exception] = [KeyError("a defect"), BatchStoreUnavailable()]
    stats, left, swept = store.stats, {"stats": errors.copy(), "sweep": errors.copy()}, asyncio.Event()

    async def failing_stats() -> StoreStats:
        if left["stats"]:
            raise left["stats"].pop()
        return await stats()

    async def failing_sweep() -> None:
        if left["sweep"]:
            raise left["sweep"].pop()
        swept.set()

    monkeypatch.setattr(store, "stats", failing_stats)
    monkeypatch.setattr(store, "remove_expired", failing_sweep)
    await submit(store, "one", model=UNHEALTHY.name)
    async with running(store, Source()) as runner:
        await asyncio.wait_for(swept.wait(), 5)
        await asyncio.sleep(0.2)
        assert runner.stats.queued == 1
    assert left == {"stats": [], "sweep": []}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "the store of queued batches could not be maintained"
    ] * 2


async def test_saved_chunks_are_not_computed_again(store: SqliteStore) -> None:
    source, texts = Source(), [f"text {number}" for number in range(150)]
    batch_id = await submit(store, *texts)
    claimed = await store.claim("dead", 0.01)
    assert claimed is not None
    assert len(claimed.waiting) == 3
    source.release.set()
    async with running(store, source):
        await result(store, batch_id)
    assert source.asked == [text.encode() for text in texts]
    before = len(source.asked)
    half = await submit(store, *texts)
    first = await store.inputs(half, 0)
    assert first is not None
    items = (await result(store, batch_id)).items[:64]
    await store.save(half, 0, codec.encode_outcomes(items), 0)
    async with running(store, source):
        assert len((await result(store, half)).items) == 150
    assert len(source.asked) == before + 150 - 64


async def test_an_id_that_is_none_never_reaches_the_store(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(account: str, batch_id: str) -> None:
        raise AssertionError(batch_id)

    monkeypatch.setattr(store, "find", find)
    for text in ("", "0", "x" * 1_000_000, "../../etc/passwd", "{tritonflare:batches}"):
        with pytest.raises(BadInput, match="is not known"):
            await BatchQueue(store, lambda account: account).fetch("a", text)

"""Runs queued batches: claims one, answers its chunks one after the other, saves each, and finishes it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

from gateway.batches import codec
from gateway.batches.idle_source import ModelNotReady
from gateway.batches.store import BatchStore, BatchSummary, ClaimedBatch, StoreStats
from gateway.domain.catalogue import Model
from gateway.domain.errors import (
    AiError,
    BackendUnavailable,
    BatchStoreUnavailable,
    NoSuchModel,
    without_frames,
)
from gateway.domain.requests import BatchRequest
from gateway.domain.service import BatchItem, Predictor, TaskAnswer

_log = logging.getLogger("tritonflare.batches")

LEASE_S = 15.0
"""How long a batch stays with a runner that does not renew its lease: until another takes it over."""
MISSING_S = 600.0
"""How long a model may be gone, while others are served, until the batches for it fail."""
_FORGET_S = 60.0
"""A model that no batch has asked for in this time is no longer known to be gone."""
_POLL_S = 1.0
"""Pause between two queries for a batch; one that this process accepts is noticed at once."""
_NOT_READY_S = 5.0
"""How long a batch is left alone whose model is away."""
_RETRY_S = 1.0
_SWEEP_S = 60.0
_STATS_S = 5.0
_END_S = 5.0
"""How long the chunk under way may take when the gateway ends."""

_Result = TypeVar("_Result")


class RunnerEvents:
    """What others want to know of a runner; override what is needed."""

    def answered(self, model: str, answer: TaskAnswer) -> None:
        """Called for each answer, before it is saved."""

    def finished(self, summary: BatchSummary) -> None:
        """Called for each batch, in one of the processes that share the store."""


class BatchRunner:
    """Runs the batches of a store, one at a time.

    Args:
        store: shared with other processes, or not.
        predictor: answers requests with what is idle; see `IdleSource`.
        find: finds a model by its public name; see `Catalogue.find`.
        is_ready: whether any model answers.
        deadline_s: of one call.
        events: see `RunnerEvents`.
    """

    def __init__(
        self,
        store: BatchStore,
        predictor: Predictor,
        find: Callable[[str], Model],
        is_ready: Callable[[], bool],
        deadline_s: float,
        events: RunnerEvents,
    ) -> None:
        self._store = store
        self._predictor = predictor
        self._find = find
        self._is_ready = is_ready
        self._deadline_s = deadline_s
        self._events = events
        self._owner = uuid4().hex
        self._missing: dict[str, tuple[float, float]] = {}
        """By the name of the model: since when a batch has found it gone, and when the last one did."""
        self._stopping = asyncio.Event()
        self._submitted = asyncio.Event()
        self.stats = StoreStats()
        """As they were a moment ago."""

    def wake(self) -> None:
        """Have it look for a batch now."""
        self._submitted.set()

    async def stop(self, running: asyncio.Task[None]) -> None:
        """End `run` after the chunk under way; the rest of its batch is for the next runner."""
        self._stopping.set()
        self._submitted.set()
        await asyncio.wait([running], timeout=_END_S)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def run(self) -> None:
        """Run batches until `stop`."""
        maintenance = asyncio.create_task(self._maintain())
        try:
            while not self._stopping.is_set():
                if not await self._run_next():
                    await self._pause()
        finally:
            maintenance.cancel()
            await asyncio.gather(maintenance, return_exceptions=True)

    async def _pause(self) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._submitted.wait(), _POLL_S)
        self._submitted.clear()

    async def _run_next(self) -> bool:
        """Run the next batch; return whether there may be another."""
        if not self._is_ready():
            return False
        try:
            batch = await self._store.claim(self._owner, LEASE_S)
            if batch is None:
                return False
            await self._run_leased(batch)
        except BatchStoreUnavailable as exc:
            without_frames(exc)
            return False
        except Exception:
            # A defect. The batch keeps its lease for a while, so that others have their turn.
            _log.exception("a queued batch could not be run")
            return False
        return True

    async def _run_leased(self, batch: ClaimedBatch) -> None:
        """Run a batch for as long as its lease can be kept."""
        work = asyncio.create_task(self._run_batch(batch))
        renewing = asyncio.create_task(self._renew(batch))
        try:
            await asyncio.wait([work, renewing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            renewing.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, renewing, return_exceptions=True)
            if self._stopping.is_set():
                with suppress(BatchStoreUnavailable):
                    await self._store.release(batch.id, self._owner)
        if not work.cancelled():
            work.result()

    async def _renew(self, batch: ClaimedBatch) -> None:
        """Renew the lease; return when it is lost."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with suppress(BatchStoreUnavailable):
                if not await self._store.renew(batch.id, self._owner, LEASE_S):
                    return

    async def _run_batch(self, batch: ClaimedBatch) -> None:
        for place in batch.waiting:
            if self._stopping.is_set():
                return
            stored = await self._store.inputs(batch.id, place)
            if stored is None:
                continue
            try:
                items = await self._answer(batch.model, codec.decode_inputs(stored))
            except ModelNotReady:
                await self._store.renew(batch.id, self._owner, _NOT_READY_S)
                return
            failed = sum(isinstance(item.outcome, AiError) for item in items)
            outcomes = codec.encode_outcomes(items)
            await self._retried(lambda: self._store.save(batch.id, place, outcomes, failed))  # noqa: B023
        summary = await self._retried(lambda: self._store.finish(batch.id))
        if summary is not None:
            self._events.finished(summary)
            _log.info(
                "batch %s finished: model=%s inputs=%d failed=%d seconds=%.3f",
                batch.id,
                summary.model,
                summary.inputs,
                summary.failed,
                summary.seconds,
            )

    async def _retried(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Repeat a call while the store is away: what was computed is not thrown away."""
        while True:
            try:
                return await call()
            except BatchStoreUnavailable as exc:
                without_frames(exc)
                if self._stopping.is_set():
                    raise
                await asyncio.sleep(_RETRY_S)

    async def _answer(self, name: str, requests: list[BatchRequest]) -> list[BatchItem]:
        """Answer one chunk.

        Raises:
            ModelNotReady: the model does not answer now.
        """
        try:
            model = self._find(name)
        except BackendUnavailable:
            raise ModelNotReady from None
        except NoSuchModel as exc:
            if self._missing_s(name) < MISSING_S:
                raise ModelNotReady from None
            return [BatchItem(item.reference, _own_error(item) or without_frames(exc)) for item in requests]
        self._missing.pop(name, None)
        valid = [item.request for item in requests if not isinstance(item.request, AiError)]
        answers = iter(await self._predictor.answer_all(model, valid, self._deadline_s))
        items = [BatchItem(item.reference, _own_error(item) or next(answers)) for item in requests]
        for item in items:
            if not isinstance(item.outcome, AiError):
                self._events.answered(model.name, item.outcome)
        return items

    def _missing_s(self, name: str) -> float:
        """Return for how long batches have found no model of this name."""
        now = time.monotonic()
        since, seen = self._missing.get(name, (now, now))
        if now - seen > _FORGET_S:
            since = now
        self._missing[name] = since, now
        return now - since

    async def _maintain(self) -> None:
        """Refresh the statistics, and remove what has expired."""
        swept_at = -_SWEEP_S
        while True:
            with suppress(BatchStoreUnavailable):
                self.stats = await self._store.stats()
                if time.monotonic() - swept_at >= _SWEEP_S:
                    await self._store.remove_expired()
                    swept_at = time.monotonic()
            await asyncio.sleep(_STATS_S)


def _own_error(item: BatchRequest) -> AiError | None:
    return item.request if isinstance(item.request, AiError) else None

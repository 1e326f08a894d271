"""Runs queued batches: claims one, answers its chunks one after the other, saves each, and finishes it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

from gateway.batches import codec
from gateway.batches.idle_source import ModelBusy, ModelNotReady
from gateway.batches.store import BatchStore, BatchSummary, ClaimedBatch, StoreStats
from gateway.domain.catalogue import Model
from gateway.domain.errors import (
    AiError,
    BackendUnavailable,
    BatchStoreUnavailable,
    ModelUnavailable,
    NoSuchModel,
    without_frames,
)
from gateway.domain.options import CallOptions
from gateway.domain.requests import BatchRequest
from gateway.domain.service import BatchItem, Predictor, TaskAnswer

_log = logging.getLogger("tritonflare.batches")

LEASE_S = 15.0
"""How long a batch stays with a runner that does not renew its lease: until another takes it over."""
MISSING_S = 600.0
"""How long a model may be gone or not answer, while others do, until the batches for it fail."""
_FORGET_S = 60.0
"""A model that no batch has asked for in this time is no longer known to be unavailable."""
_POLL_S = 1.0
"""Pause between two queries for a batch; one that this process accepts is noticed at once."""
_NOT_READY_S = 5.0
"""How long the batches for a model are left alone that is not ready."""
_BUSY_S = 0.5
"""The same for a model that live requests keep busy: long enough for batches for others to be claimed."""
MAX_TRIES = 3
"""How often a chunk may end in an unexpected error before that is its outcome."""
_MAX_FAILURES = 10_000
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
        predictor: makes what answers the requests of a chunk with these options; see `IdleSource`.
        find: finds a model by its public name; see `Catalogue.find`.
        is_ready: whether any model answers.
        is_available: whether this version of a model is served, and answers.
        deadline_s: of one call.
        events: see `RunnerEvents`.
    """

    def __init__(
        self,
        store: BatchStore,
        predictor: Callable[[CallOptions], Predictor],
        find: Callable[[str], Model],
        is_ready: Callable[[], bool],
        is_available: Callable[[Model], bool],
        deadline_s: float,
        events: RunnerEvents,
    ) -> None:
        self._store = store
        self._predictor = predictor
        self._find = find
        self._is_ready = is_ready
        self._is_available = is_available
        self._deadline_s = deadline_s
        self._events = events
        self._owner = uuid4().hex
        self._unavailable: dict[str, tuple[float, float]] = {}
        """By the name of the model: since when batches have found it unavailable, and when one did last."""
        self._failures: dict[tuple[str, int], int] = {}
        """How often a chunk has ended in an unexpected error, by the id of its batch and its place."""
        self._put_off: dict[str, float] = {}
        """By the name of the model: until when the batches for it are left alone."""
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
            batch = await self._store.claim(self._owner, LEASE_S, self._models_put_off())
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

    def _models_put_off(self) -> list[str]:
        now = time.monotonic()
        self._put_off = {name: until for name, until in self._put_off.items() if until > now}
        return list(self._put_off)

    async def _run_batch(self, batch: ClaimedBatch) -> None:
        try:
            for place in batch.waiting:
                if self._stopping.is_set():
                    return
                await self._run_chunk(batch, place)
        except ModelNotReady as exc:
            pause_s = _BUSY_S if isinstance(exc, ModelBusy) else _NOT_READY_S
            self._put_off[batch.model] = time.monotonic() + pause_s
            await self._store.release(batch.id, self._owner)
            return
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

    async def _run_chunk(self, batch: ClaimedBatch, place: int) -> None:
        """Answer a chunk and save its outcomes.

        Raises:
            ModelNotReady: it waits for its model.
        """
        model = self._model(batch.model)  # first, so that a chunk that has to wait is not read
        stored = await self._store.inputs(batch.id, place)
        if stored is None:
            return
        try:
            items = await self._answer(model, *codec.decode_inputs(stored))
        except ModelNotReady:
            raise
        except Exception:
            if self._count_failure(batch.id, place) < MAX_TRIES:
                raise
            _log.exception("a chunk of batch %s failed for the last time", batch.id)
            items = codec.failed_items(stored)
        failed = sum(isinstance(item.outcome, AiError) for item in items)
        outcomes = codec.encode_outcomes(items)
        await self._retried(lambda: self._store.save(batch.id, place, outcomes, failed))
        self._failures.pop((batch.id, place), None)

    def _count_failure(self, batch_id: str, place: int) -> int:
        """Count an unexpected error of a chunk; return how many there were."""
        if len(self._failures) > _MAX_FAILURES:
            self._failures.clear()
        self._failures[batch_id, place] = self._failures.get((batch_id, place), 0) + 1
        return self._failures[batch_id, place]

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

    def _model(self, name: str) -> Model | AiError:
        """Return the model of this name, or the outcome of all requests to it.

        Raises:
            ModelNotReady: it does not answer now, but may do so soon.
        """
        error: AiError
        try:
            model = self._find(name)
        except BackendUnavailable:
            raise ModelNotReady from None
        except NoSuchModel as exc:
            error = without_frames(exc)
        else:
            if self._is_available(model):
                self._unavailable.pop(name, None)
                return model
            error = ModelUnavailable()
        if self._unavailable_s(name) < MISSING_S:
            raise ModelNotReady
        return error

    def _unavailable_s(self, name: str) -> float:
        """Return for how long batches have found no model of this name that answers."""
        now = time.monotonic()
        since, seen = self._unavailable.get(name, (now, now))
        if now - seen > _FORGET_S:
            since = now
        self._unavailable[name] = since, now
        return now - since

    async def _answer(
        self, model: Model | AiError, requests: list[BatchRequest], options: CallOptions
    ) -> list[BatchItem]:
        """Answer the requests of one chunk.

        Raises:
            ModelNotReady: the model does not answer now.
        """
        if isinstance(model, AiError):
            return [BatchItem(item.reference, _own_error(item) or model) for item in requests]
        valid = [item.request for item in requests if not isinstance(item.request, AiError)]
        predictor = self._predictor(options)
        answers = iter(await predictor.answer_all(model, valid, self._deadline_s, options))
        items = [BatchItem(item.reference, _own_error(item) or next(answers)) for item in requests]
        for item in items:
            if not isinstance(item.outcome, AiError):
                self._events.answered(model.name, item.outcome)
        return items

    async def _maintain(self) -> None:
        """Refresh the statistics, and remove what has expired."""
        swept_at = -math.inf
        while True:
            await self._try(self._refresh_stats)
            if time.monotonic() - swept_at >= _SWEEP_S and await self._try(self._store.remove_expired):
                swept_at = time.monotonic()
            await asyncio.sleep(_STATS_S)

    async def _refresh_stats(self) -> None:
        self.stats = await self._store.stats()

    async def _try(self, job: Callable[[], Awaitable[None]]) -> bool:
        """Do a job; return whether it was done. Whatever ends it, it is tried again later."""
        try:
            await job()
        except BatchStoreUnavailable as exc:
            without_frames(exc)  # the store has logged why
            return False
        except Exception:
            _log.exception("the store of queued batches could not be maintained")
            return False
        return True


def _own_error(item: BatchRequest) -> AiError | None:
    return item.request if isinstance(item.request, AiError) else None

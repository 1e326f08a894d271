"""Batches that are fetched later: their store, their queue, and their runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.batches.idle_source import Classify, IdleSource
from gateway.batches.queue import BatchQueue
from gateway.batches.redis_store import MalformedRedisUrl, RedisBatchStore
from gateway.batches.runner import BatchRunner, RunnerEvents
from gateway.batches.sqlite_store import SqliteStore
from gateway.batches.store import BatchStore, BatchSummary, StoreLimits
from gateway.composition.inference import Inference
from gateway.domain.backend import Answer, AnswerSource
from gateway.domain.catalogue import Model
from gateway.domain.inputs import ModelInput
from gateway.domain.options import CallOptions
from gateway.domain.service import Predictor, TaskAnswer
from gateway.settings import ConfigurationError, Settings
from gateway.telemetry import gauges
from gateway.telemetry.counters import BatchCounters
from gateway.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Batches:
    """What queued batches need; the queue is for the pipeline."""

    store: BatchStore
    queue: BatchQueue
    runner: BatchRunner

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run batches in the background; at the end, the chunk under way is finished."""
        task = asyncio.create_task(self.runner.run())
        try:
            yield
        finally:
            await self.runner.stop(task)
            await self.store.close()


def max_queued_batch_texts(settings: Settings) -> int | None:
    """Return how many texts a queued batch may have; None if batches cannot be queued.

    A batch with more texts than an account may send in a minute would never be accepted.
    """
    if not settings.keeps_batches:
        return None
    return min(
        settings.max_queued_batch_texts, settings.requests_per_minute or settings.max_queued_batch_texts
    )


def compose_batches(
    settings: Settings, inference: Inference, admission: Admission, rate: RateLimit, metrics: Metrics
) -> Batches | None:
    """Put the parts together; None if batches cannot be queued.

    Raises:
        ConfigurationError: the URL of Redis is malformed, or the extra is not installed.
    """
    store = _store(settings)
    if store is None:
        return None
    counters = metrics.batch_counters()
    is_available = partial(_is_available, inference)
    source = IdleSource(
        inference.cache.classify if inference.cache is not None else _without_options(inference.coalescer),
        is_idle=inference.coalescer.is_idle,
        in_flight=lambda: admission.in_flight,
        is_available=is_available,
        most_inputs=settings.max_call_texts,
    )
    runner = BatchRunner(
        store,
        lambda options: Predictor(
            source.with_options(options), windows=inference.windows, deadline_per_call=True
        ),
        inference.catalogue.find,
        lambda: any(inference.health.is_healthy(model) for model in inference.catalogue),
        is_available,
        settings.request_timeout_s,
        _Events(metrics, counters),
    )

    def submitted() -> None:
        counters.accepted()
        runner.wake()

    metrics.register_gauges(
        {
            gauges.BATCHES_QUEUED: lambda: runner.stats.queued,
            gauges.BATCHES_RUNNING: lambda: runner.stats.running,
            gauges.OLDEST_BATCH: lambda: runner.stats.oldest_s,
        }
    )
    return Batches(store, BatchQueue(store, rate.bucket_of, submitted), runner)


def _store(settings: Settings) -> BatchStore | None:
    limits = StoreLimits(settings.max_queued_batches, settings.batch_store_bytes, settings.batch_keep_s)
    if settings.batch_redis_url is None:
        return None if settings.batch_folder is None else SqliteStore(settings.batch_folder, limits)
    try:
        return RedisBatchStore(settings.batch_redis_url.get_secret_value(), limits)
    except ImportError:
        raise ConfigurationError(
            "GATEWAY_BATCH_REDIS_URL needs the package redis: .venv/bin/pip install -e '.[redis]'."
        ) from None
    except MalformedRedisUrl:
        raise ConfigurationError(
            "GATEWAY_BATCH_REDIS_URL is not of the form redis://[:password@]host:port/db."
        ) from None


def _without_options(source: AnswerSource) -> Classify:
    """Return a source without a cache, which is all that options are for."""

    async def classify(
        model: Model, texts: Sequence[ModelInput], deadline_s: float, options: CallOptions
    ) -> list[Answer]:
        return list(await source.classify(model, texts, deadline_s))

    return classify


def _is_available(inference: Inference, model: Model) -> bool:
    """Whether this very version is still served, and answers."""
    catalogue = inference.catalogue
    is_served = model.name in catalogue and catalogue.find(model.name) == model
    return is_served and inference.health.is_healthy(model)


class _Events(RunnerEvents):
    def __init__(self, metrics: Metrics, counters: BatchCounters) -> None:
        self._metrics = metrics
        self._counters = counters

    def answered(self, model: str, answer: TaskAnswer) -> None:
        self._metrics.answered(model, answer)

    def finished(self, summary: BatchSummary) -> None:
        self._counters.finished(failed=summary.failed == summary.inputs, seconds=summary.seconds)

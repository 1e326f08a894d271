"""Watches the backend in the background: refreshes the catalogue, sends canaries, decides readiness."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.domain.backend import AnswerSource, Backend
from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import (
    AiError,
    BackendFailed,
    DeadlineExceeded,
    Overloaded,
    TritonflareError,
    without_frames,
)
from gateway.domain.health import ModelHealth
from gateway.domain.inputs import ModelInput, Pair
from gateway.domain.tasks import Task

_log = logging.getLogger("tritonflare.monitor")

CANARY_TEXT = b"This is a canary."
_CANARIES: dict[Task, ModelInput] = {
    Task.CLASSIFICATION: CANARY_TEXT,
    Task.RERANK: Pair(CANARY_TEXT, CANARY_TEXT),
}
_CONCURRENT_CANARIES = 8
"""Concurrent canaries of one refresh; also the number of failures after which it sends no more."""
_SHOWN_MODELS = 3


@dataclass(frozen=True, slots=True)
class MonitorTimes:
    """In seconds, and canaries a second; see the settings of the same names."""

    refresh_interval_s: float
    retry_interval_s: float
    canary_timeout_s: float
    request_timeout_s: float = 10.0
    canaries_per_s: float = 20.0


class Monitor:
    """Ready means: models are known, each is healthy (`ModelHealth`), and the gateway is not draining.

    Canaries are sent like all texts, so that they meet the same faults and limits. They go round within a
    budget, first to the models without an answer for the longest time: the time until a model's fault is
    noticed grows with the number of models, and the cost does not.

    Args:
        backend: lists the models.
        source: answers canaries.
        catalogue: receives the list.
        health: which models answer.
        times: see `MonitorTimes`.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        backend: Backend,
        source: AnswerSource,
        catalogue: Catalogue,
        health: ModelHealth,
        times: MonitorTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._source = source
        self._catalogue = catalogue
        self._health = health
        self._times = times
        self._clock = clock
        self._pending_canaries: dict[Model, asyncio.Task[bool]] = {}
        self._refreshed_at = clock()
        self._draining = False
        self._logged_reason: str | None = "starting"
        self._became_ready = asyncio.Event()

    def why_not_ready(self) -> str | None:
        """Return None when ready, else a short reason that is safe to show."""
        if self._draining:
            return "draining"
        if not len(self._catalogue):
            return "no model is known"
        silent = [model.name for model in self._catalogue if not self._health.is_healthy(model)]
        if not silent:
            return None
        more = f" and {len(silent) - _SHOWN_MODELS} more" if len(silent) > _SHOWN_MODELS else ""
        return f"no canary answer from {', '.join(silent[:_SHOWN_MODELS])}{more}"

    def is_ready(self) -> bool:
        """Tell whether requests would be served now."""
        return self.why_not_ready() is None

    def start_draining(self) -> None:
        """Turn readiness off for good."""
        self._draining = True

    async def wait_until_ready(self) -> None:
        """Return once the gateway has been ready for the first time."""
        await self._became_ready.wait()

    async def run(self) -> None:
        """Refresh until cancelled; a failed refresh does not end it."""
        try:
            while True:
                await self._refresh_and_log()
                await self._pause()
        finally:
            for canary in self._pending_canaries.values():
                canary.cancel()

    async def _refresh_and_log(self) -> None:
        try:
            await self.refresh()
        except Exception:
            # This loop alone restores readiness, so no defect may end it.
            _log.exception("the models could not be refreshed")
            self._health.all_unavailable()
        self._log_readiness(self.why_not_ready())

    async def _pause(self) -> None:
        """Sleep until the next refresh, which is due sooner once a model is not ready."""
        left_s = self._times.refresh_interval_s
        while left_s > 0:
            pause_s = min(self._times.retry_interval_s, left_s)
            await asyncio.sleep(pause_s)
            if not self.is_ready():
                return
            left_s -= pause_s

    async def refresh(self) -> None:
        """Refresh the catalogue and send canaries."""
        try:
            self._catalogue.replace(await self._backend.discover())
        except TritonflareError as exc:
            # The old catalogue stays: "the server is away" is a truer answer than "no such model".
            _log.debug("discovery failed: %s", exc.message)
        silent, others = self._due()
        await self._send_canaries(silent)
        await self._send_canaries(others)
        models = set(self._catalogue)  # read again: a new version may have replaced it meanwhile
        for gone in self._pending_canaries.keys() - models:
            self._pending_canaries[gone].cancel()
        self._health.keep(models)

    def _due(self) -> tuple[list[Model], list[Model]]:
        """Return the models that do not answer, and as many others as the budget has canaries for."""
        now = self._clock()
        pause_s = max(now - self._refreshed_at, self._times.retry_interval_s)
        self._refreshed_at = now
        silent, others = self._health.by_need(
            [model for model in self._catalogue if model not in self._pending_canaries]
        )
        return silent, others[: max(1, int(self._times.canaries_per_s * pause_s))]

    async def _send_canaries(self, models: Sequence[Model]) -> None:
        """Send a canary to each, some at a time, until too many have had no answer."""
        remaining, failures = iter(models), 0

        async def send() -> None:
            nonlocal failures
            for model in remaining:
                if not await self._send_canary(model):
                    failures += 1
                if failures >= _CONCURRENT_CANARIES:
                    return

        await asyncio.gather(*(send() for _ in range(min(_CONCURRENT_CANARIES, len(models)))))

    async def _send_canary(self, model: Model) -> bool:
        """Return whether a canary was answered in time; a later answer counts when it arrives."""
        canary = self._pending_canaries[model] = asyncio.create_task(self._classify_canary(model))
        canary.add_done_callback(lambda _: self._pending_canaries.pop(model, None))
        await asyncio.wait((canary,), timeout=self._times.canary_timeout_s)
        return canary.done() and not canary.cancelled() and canary.result()

    async def _classify_canary(self, model: Model) -> bool:
        self._health.canary_sent(model)
        try:
            (answer,) = await self._source.classify(
                model, (_CANARIES[model.task],), self._times.request_timeout_s
            )
        except AiError as exc:
            answer = without_frames(exc)
        except Exception:
            _log.exception("a canary for %s failed", model.name)
            answer = BackendFailed()
        if not isinstance(answer, AiError):
            self._health.answered(model)
            return True
        # Busy is not broken: under full load, what counts is for how long no text was answered.
        if not isinstance(answer, (DeadlineExceeded, Overloaded)):
            self._health.unavailable(model)
        return False

    def _log_readiness(self, reason: str | None) -> None:
        if reason is None:
            self._became_ready.set()
        if reason != self._logged_reason:
            self._logged_reason = reason
            if reason is None:
                _log.info("ready")
            else:
                _log.warning("not ready: %s", reason)

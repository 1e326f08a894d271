"""Watches the backend in the background: refreshes the catalogue, sends canaries, tells readiness."""

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

_log = logging.getLogger("tritonflare.monitor")

CANARY_TEXT = b"A canary sings."
_AT_ONCE = 8
"""Canaries that one look waits for at a time, and after so many without an answer it waits for no more."""
_SHOWN_MODELS = 3


@dataclass(frozen=True, slots=True)
class MonitorTimes:
    """In seconds; see the settings of the same names."""

    refresh_interval_s: float
    retry_interval_s: float
    canary_timeout_s: float
    canary_max_age_s: float
    request_timeout_s: float = 10.0
    canaries_per_s: float = 20.0


class Monitor:
    """Ready means: models are known, each answers, and nobody is shutting down.

    A model answers once it has answered anybody, until a canary fails, has waited for too long while
    nobody was answered, or a call finds no server available. Canaries go the way of all texts, so that
    they meet what texts meet. They go round within a budget, first to the models that have answered nobody
    for the longest: so the time until a model's fault is noticed grows with the number of models, and the
    cost does not.
    """

    def __init__(
        self,
        backend: Backend,
        source: AnswerSource,
        catalogue: Catalogue,
        times: MonitorTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what lists the models, what answers texts, and where to put the list."""
        self._backend = backend
        self._source = source
        self._catalogue = catalogue
        self._times = times
        self._clock = clock
        self._answered: dict[Model, float] = {}
        """When those that answer did so last."""
        self._asked: dict[Model, float] = {}
        """Since when canaries have waited for those that have answered nobody meanwhile."""
        self._songs: dict[Model, asyncio.Task[bool]] = {}
        """Canaries that are not back."""
        self._looked_at = clock()
        self._draining = False
        self._trouble: str | None = "starting"
        self._became_ready = asyncio.Event()

    def why_not_ready(self) -> str | None:
        """Return None when ready, else a short reason that is safe to show."""
        if self._draining:
            return "draining"
        if not len(self._catalogue):
            return "no model is known"
        silent = [model.name for model in self._catalogue if not self._answers(model)]
        if not silent:
            return None
        more = f" and {len(silent) - _SHOWN_MODELS} more" if len(silent) > _SHOWN_MODELS else ""
        return f"no canary answer from {', '.join(silent[:_SHOWN_MODELS])}{more}"

    def _answers(self, model: Model) -> bool:
        asked = self._asked.get(model)
        late = asked is not None and self._clock() - asked >= self._times.canary_max_age_s
        return model in self._answered and not late

    def answered(self, model: Model) -> None:
        """Take an answer to whoever asked for one to a canary, which may be stuck in the limiter."""
        self._answered[model] = self._clock()
        self._asked.pop(model, None)

    def unavailable(self, model: Model) -> None:
        """Make the model not ready: a call found no server available for it.

        The next answer, to a caller or to a canary, makes it ready again.
        """
        self._answered.pop(model, None)

    def start_draining(self) -> None:
        """Turn readiness off for good."""
        self._draining = True

    async def wait_until_ready(self) -> None:
        """Return once the gateway has been ready for the first time."""
        await self._became_ready.wait()

    async def run(self) -> None:
        """Look at the backend for ever; a round that fails is followed by the next."""
        try:
            while True:
                await self._round()
        finally:
            for song in self._songs.values():
                song.cancel()

    async def _round(self) -> None:
        try:
            await self.look()
        except Exception:
            # The loop is the only thing that brings readiness back, so no defect may end it.
            _log.exception("a look at the backend failed")
            self._answered.clear()
        self._report(self.why_not_ready())
        await self._pause()

    async def _pause(self) -> None:
        """Sleep until the next look, which is due sooner once a model is not ready."""
        left_s = self._times.refresh_interval_s
        while left_s > 0:
            pause_s = min(self._times.retry_interval_s, left_s)
            await asyncio.sleep(pause_s)
            if self.why_not_ready() is not None:
                return
            left_s -= pause_s

    async def look(self) -> None:
        """Refresh the catalogue and send canaries."""
        try:
            self._catalogue.replace(await self._backend.discover())
        except TritonflareError as exc:
            # The old catalogue stays: "the server is away" is a truer answer than "no such model".
            _log.debug("discovery failed: %s", exc.message)
        silent, others = self._due()
        await self._send_canaries(silent)
        await self._send_canaries(others)
        models = set(self._catalogue)  # read again: a new version may have come meanwhile
        for gone in self._songs.keys() - models:
            self._songs[gone].cancel()
        self._answered = {model: at for model, at in self._answered.items() if model in models}
        self._asked = {model: at for model, at in self._asked.items() if model in models}

    def _due(self) -> tuple[list[Model], list[Model]]:
        """The models that do not answer, and as many of the others as the budget has canaries for."""
        now = self._clock()
        pause_s = max(now - self._looked_at, self._times.retry_interval_s)
        self._looked_at = now
        models = [model for model in self._catalogue if model not in self._songs]
        # Those behind one that fails always must have their turn, too.
        silent = sorted(
            (model for model in models if model not in self._answered),
            key=lambda model: self._asked.get(model, 0.0),
        )
        others = sorted(
            (model for model in models if model in self._answered), key=lambda model: self._answered[model]
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
                if failures >= _AT_ONCE:
                    return

        await asyncio.gather(*(send() for _ in range(min(_AT_ONCE, len(models)))))

    async def _send_canary(self, model: Model) -> bool:
        """Tell whether a canary was answered soon; an answer that comes later counts when it comes."""
        song = self._songs[model] = asyncio.create_task(self._sing(model))
        song.add_done_callback(lambda _: self._songs.pop(model, None))
        await asyncio.wait((song,), timeout=self._times.canary_timeout_s)
        return song.done() and not song.cancelled() and song.result()

    async def _sing(self, model: Model) -> bool:
        if model in self._answered:
            self._asked.setdefault(model, self._clock())
        else:
            self._asked[model] = self._clock()
        try:
            (answer,) = await self._source.classify(model, (CANARY_TEXT,), self._times.request_timeout_s)
        except AiError as exc:
            answer = without_frames(exc)
        except Exception:
            _log.exception("a canary for %s failed", model.name)
            answer = BackendFailed()
        if not isinstance(answer, AiError):
            self.answered(model)
        elif not isinstance(answer, (DeadlineExceeded, Overloaded)):
            self._answered.pop(model, None)
        # Busy is not broken: under full load it counts for how long nobody was answered.
        return not isinstance(answer, AiError)

    def _report(self, reason: str | None) -> None:
        if reason is None:
            self._became_ready.set()
        if reason != self._trouble:
            self._trouble = reason
            if reason is None:
                _log.info("ready")
            else:
                _log.warning("not ready: %s", reason)

"""Watches the backend in the background: refreshes the catalogue, sends canaries, tells readiness."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.domain.backend import Backend
from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import DeadlineExceeded, Overloaded, TritonflareError

_log = logging.getLogger("tritonflare.monitor")

CANARY_TEXT = b"A canary sings."
_LONGEST_SONG_S = 60.0
"""A canary that is not back by then is given up, and another one sent."""


@dataclass(frozen=True, slots=True)
class MonitorTimes:
    """All in seconds; see the settings of the same names."""

    refresh_interval_s: float
    retry_interval_s: float
    canary_timeout_s: float
    canary_max_age_s: float


class Monitor:
    """Ready means: models are known, each answered a canary lately, and nobody is shutting down."""

    def __init__(
        self,
        backend: Backend,
        catalogue: Catalogue,
        times: MonitorTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._catalogue = catalogue
        self._times = times
        self._clock = clock
        self._sung: dict[Model, float] = {}
        self._songs: dict[Model, asyncio.Task[None]] = {}
        """Canaries that are not back: a backend that is silent must not collect them."""
        self._draining = False
        self._trouble: str | None = "starting"
        self._became_ready = asyncio.Event()

    def why_not_ready(self) -> str | None:
        """Return None when ready, else a short reason that is safe to show."""
        if self._draining:
            return "draining"
        if not len(self._catalogue):
            return "no model is known"
        oldest = self._clock() - self._times.canary_max_age_s
        silent = [model.name for model in self._catalogue if self._sung.get(model, oldest) <= oldest]
        return f"no canary answer from {', '.join(silent)}" if silent else None

    def answered(self, model: Model) -> None:
        """Take an answer to whoever asked for as good as one to a canary, which may be stuck in the crowd."""
        self._sung[model] = self._clock()

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
            self._sung.clear()
        reason = self.why_not_ready()
        self._report(reason)
        ready = reason is None
        await asyncio.sleep(self._times.refresh_interval_s if ready else self._times.retry_interval_s)

    async def look(self) -> None:
        """Refresh the catalogue and send one canary to each model."""
        try:
            self._catalogue.replace(await self._backend.discover())
        except TritonflareError as exc:
            # The old catalogue stays: "the server is away" is a truer answer than "no such model".
            _log.debug("discovery failed: %s", exc.message)
        await asyncio.gather(*map(self._send_canary, list(self._catalogue)))
        models = set(self._catalogue)  # read again: a new version may have come meanwhile
        for gone in self._songs.keys() - models:
            self._songs.pop(gone).cancel()
        self._sung = {model: at for model, at in self._sung.items() if model in models}

    async def _send_canary(self, model: Model) -> None:
        """Wait for the model's canary for as long as one may take; if it is late, later looks find it."""
        song = self._songs.get(model)
        if song is None:
            song = self._songs[model] = asyncio.create_task(self._sing(model))
        await asyncio.wait((song,), timeout=self._times.canary_timeout_s)
        if song.done():
            del self._songs[model]
            song.result()

    async def _sing(self, model: Model) -> None:
        try:
            await self._backend.classify(model, (CANARY_TEXT,), _LONGEST_SONG_S)
        except (DeadlineExceeded, Overloaded):
            # Busy is not broken: under full load the last answer counts until it is too old.
            return
        except TritonflareError:
            self._sung.pop(model, None)
            return
        self._sung[model] = self._clock()

    def _report(self, reason: str | None) -> None:
        if reason is None:
            self._became_ready.set()
        if reason != self._trouble:
            self._trouble = reason
            if reason is None:
                _log.info("ready")
            else:
                _log.warning("not ready: %s", reason)

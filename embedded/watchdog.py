"""Signs of life of a running server: is it alive, at work, or does it need another start?"""

from __future__ import annotations

import time
from contextlib import suppress
from enum import Enum
from typing import Literal

import grpc

from embedded.canary import Canary, Counts, counts
from embedded.processes import Processes
from embedded.repository import Model

Trouble = Literal["ended", "stub", "failing", "wedged"]
"""Why a server is started anew: it ended, one of its stubs did, it answers with errors, or not at all."""
TROUBLES: tuple[Trouble, ...] = ("ended", "stub", "failing", "wedged")

LOOK_S = 1.0
"""Pause between two looks."""
_LAST_SONG_S = 0.5
_FAILED_LOOKS = 3
_IDLE_LOOKS = 8
"""Looks without an answer, and without work either. A pause of five seconds, whatever its cause, costs
no more than its time if nobody intervenes; starting anew would fail all requests that wait."""
_BUSY_LOOKS = 60
"""Looks without an answer in spite of work: more than any request may take."""
_BUSY_SHARE = 0.05
"""Of one core. Stubs that wait use none at all, and one that computes gets more even beside others."""


class Sign(Enum):
    """What one look has seen of a model."""

    ANSWER = "answer"
    SILENCE = "silence"
    FAILURE = "failure"


class Pulse:
    """Judges one model from what is seen of it at each look.

    Overload is no wedge: who computes, or answers anybody, lives. Looks are counted, not seconds: when the
    machine sleeps or has no time for us, we look less often, and nothing has been missed.
    """

    def __init__(self) -> None:
        self._silent = self._idle = self._failed = 0

    def feel(self, sign: Sign, *, working: bool) -> Trouble | None:
        """Take what a look has seen; tell what is wrong."""
        if sign is Sign.ANSWER:
            self._silent = self._idle = self._failed = 0
            return None
        self._silent += 1
        self._idle = 0 if working else self._idle + 1
        self._failed += sign is Sign.FAILURE
        if self._failed >= _FAILED_LOOKS:
            return "failing"
        return "wedged" if self._idle >= _IDLE_LOOKS or self._silent >= _BUSY_LOOKS else None


class Vitals:
    """Watches one server.

    Args:
        canary: a client of the server; closed by `close`.
        processes: those of the server; closed by `close`.
        models: what it serves.
    """

    def __init__(self, canary: Canary, processes: Processes, models: list[Model]) -> None:
        self._canary = canary
        self._processes = processes
        self._models = models
        self._pulses = {model.ensemble: Pulse() for model in models}
        self._songs = {model.ensemble: canary.sing(model.ensemble) for model in models}
        self._counting = canary.count(LOOK_S)
        self._counted: Counts = {}
        self._marks: dict[str, Counts] = {}
        self._cpu_s = processes.stub_cpu_s()
        self._looked = time.monotonic()

    def close(self) -> None:
        """Look no more; canaries under way have a moment to come back, because closing cancels them."""
        ends = time.monotonic() + _LAST_SONG_S
        for song in self._songs.values():
            with suppress(grpc.FutureTimeoutError, grpc.FutureCancelledError):
                song.exception(timeout=max(0.0, ends - time.monotonic()))
        self._canary.close()
        self._processes.close()

    def wait(self, wake: int) -> None:
        """Return when a process has ended, ``wake`` is readable, or it is time to look."""
        self._processes.wait(wake, self._looked + LOOK_S - time.monotonic())

    def ended(self) -> Trouble | None:
        """Which process is missing, if one is."""
        if self._processes.server_ended:
            return "ended"
        return "stub" if self._processes.stub_ended else None

    def look(self) -> Trouble | None:
        """Tell what is wrong, if anything is; to be called often."""
        trouble = self.ended()
        now = time.monotonic()
        if trouble is not None or now < self._looked + LOOK_S:
            return trouble
        cpu_s = self._processes.stub_cpu_s()
        working = cpu_s - self._cpu_s > _BUSY_SHARE * (now - self._looked)
        self._cpu_s, self._looked = cpu_s, now
        if self._counting.done():
            if self._counting.exception() is None:
                self._counted = counts(self._counting.result())
            self._counting = self._canary.count(LOOK_S)
        troubles = [
            self._pulses[model.ensemble].feel(self._sign(model), working=working) for model in self._models
        ]
        return next((found for found in troubles if found is not None), None)

    def _sign(self, model: Model) -> Sign:
        """What can be seen of a model; begin another canary when the last one is back."""
        moved = self._moved(model)
        song = self._songs[model.ensemble]
        if not song.done():
            return Sign.ANSWER if moved else Sign.SILENCE
        self._songs[model.ensemble] = self._canary.sing(model.ensemble)
        error = song.exception()
        if error is None or moved:
            return Sign.ANSWER
        code = error.code() if isinstance(error, grpc.RpcError) else None
        absent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        return Sign.SILENCE if code in absent else Sign.FAILURE

    def _moved(self, model: Model) -> bool:
        """Whether anybody was answered, or all steps have done something, since that was last so."""
        names = (model.ensemble, *model.steps)
        now = {name: self._counted.get(name, (0, 0)) for name in names}
        mark = self._marks.setdefault(model.ensemble, now)
        answered = now[model.ensemble][0] > mark[model.ensemble][0]
        if answered or (model.steps and all(now[step][1] > mark[step][1] for step in model.steps)):
            self._marks[model.ensemble] = now
            return True
        return False

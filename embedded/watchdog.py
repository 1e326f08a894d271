"""Decides whether a running server is alive, busy, or has to be restarted."""

from __future__ import annotations

import time
from contextlib import suppress
from enum import Enum
from typing import Literal

import grpc

from embedded.canary import Canary, Statistics, read_statistics
from embedded.processes import Processes
from embedded.repository import RepositoryModel

Fault = Literal["ended", "stub", "failing", "wedged"]
"""Why a server is restarted: it ended, one of its stubs did, it answers with errors, or not at all."""
FAULTS: tuple[Fault, ...] = ("ended", "stub", "failing", "wedged")

CHECK_S = 1.0
"""Pause between two checks."""
_LAST_PROBE_S = 0.5
"""Time for probes under way when the watchdog is closed."""
_FAILED_CHECKS = 3
_IDLE_CHECKS = 8
"""Checks without an answer, and without CPU use either. A pause of five seconds, for any reason, costs
no more than its time if the server is left alone; a restart would fail all requests that wait."""
_BUSY_CHECKS = 60
"""Checks without an answer in spite of CPU use: longer than any request may take."""
_BUSY_SHARE = 0.05
"""Of one core. Stubs that wait use none at all, and one that computes gets more even beside others."""


class Observation(Enum):
    """What one check has found of a model."""

    ANSWER = "answer"
    SILENCE = "silence"
    FAILURE = "failure"


class FaultDetector:
    """Judges one model from the observations of each check.

    An overloaded model is not wedged: it computes, or answers some requests. Checks are counted, not
    seconds: when the machine is suspended or this process gets no CPU, there are fewer checks, and none
    was missed.
    """

    def __init__(self) -> None:
        self._silent = self._idle = self._failed = 0

    def observe(self, observation: Observation, *, working: bool) -> Fault | None:
        """Add an observation; return the fault, if it makes one certain.

        Args:
            observation: of the model.
            working: whether the server's stubs have used the CPU since the last check.
        """
        if observation is Observation.ANSWER:
            self._silent = self._idle = self._failed = 0
            return None
        self._silent += 1
        self._idle = 0 if working else self._idle + 1
        self._failed += observation is Observation.FAILURE
        if self._failed >= _FAILED_CHECKS:
            return "failing"
        return "wedged" if self._idle >= _IDLE_CHECKS or self._silent >= _BUSY_CHECKS else None


class Watchdog:
    """Watches one server.

    Args:
        canary: a client of the server; closed by `close`.
        processes: those of the server; closed by `close`.
        models: the models that it serves.
    """

    def __init__(self, canary: Canary, processes: Processes, models: list[RepositoryModel]) -> None:
        self._canary = canary
        self._processes = processes
        self._models = models
        self._detectors = {model.ensemble: FaultDetector() for model in models}
        self._pending_probes = {model.ensemble: canary.probe(model) for model in models}
        self._pending_statistics = canary.request_statistics(CHECK_S)
        self._statistics: Statistics = {}
        self._progress_at: dict[str, Statistics] = {}
        """For each ensemble, the statistics when it last made progress."""
        self._cpu_s = processes.stub_cpu_s()
        self._checked = time.monotonic()

    def close(self) -> None:
        """Stop watching; probes under way get a moment to be answered, because closing cancels them."""
        ends = time.monotonic() + _LAST_PROBE_S
        for probe in self._pending_probes.values():
            with suppress(grpc.FutureTimeoutError, grpc.FutureCancelledError):
                probe.exception(timeout=max(0.0, ends - time.monotonic()))
        self._canary.close()
        self._processes.close()

    def wait(self, wake: int) -> None:
        """Return when a process has ended, ``wake`` is readable, or the next check is due."""
        self._processes.wait(wake, self._checked + CHECK_S - time.monotonic())

    def ended(self) -> Fault | None:
        """Return which kind of process has ended, if one has."""
        if self._processes.server_ended:
            return "ended"
        return "stub" if self._processes.stub_ended else None

    def check(self) -> Fault | None:
        """Return the server's fault, if it has one; may be called at any time."""
        fault = self.ended()
        now = time.monotonic()
        if fault is not None or now < self._checked + CHECK_S:
            return fault
        cpu_s = self._processes.stub_cpu_s()
        working = cpu_s - self._cpu_s > _BUSY_SHARE * (now - self._checked)
        self._cpu_s, self._checked = cpu_s, now
        if self._pending_statistics.done():
            if self._pending_statistics.exception() is None:
                self._statistics = read_statistics(self._pending_statistics.result())
            self._pending_statistics = self._canary.request_statistics(CHECK_S)
        faults = [
            self._detectors[model.ensemble].observe(self._observe(model), working=working)
            for model in self._models
        ]
        return next((found for found in faults if found is not None), None)

    def _observe(self, model: RepositoryModel) -> Observation:
        """Observe a model, and probe it again if the last probe is over."""
        progressed = self._has_progressed(model)
        probe = self._pending_probes[model.ensemble]
        if not probe.done():
            return Observation.ANSWER if progressed else Observation.SILENCE
        self._pending_probes[model.ensemble] = self._canary.probe(model)
        error = probe.exception()
        if error is None or progressed:
            return Observation.ANSWER
        code = error.code() if isinstance(error, grpc.RpcError) else None
        unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        return Observation.SILENCE if code in unreachable else Observation.FAILURE

    def _has_progressed(self, model: RepositoryModel) -> bool:
        """Whether any request was answered, or all steps have executed, since this was last true."""
        names = (model.ensemble, *model.steps)
        now = {name: self._statistics.get(name, (0, 0)) for name in names}
        before = self._progress_at.setdefault(model.ensemble, now)
        answered = now[model.ensemble][0] > before[model.ensemble][0]
        if answered or (model.steps and all(now[step][1] > before[step][1] for step in model.steps)):
            self._progress_at[model.ensemble] = now
            return True
        return False

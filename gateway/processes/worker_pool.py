"""Several processes on one port: starts them, replaces those that end, stops them in order.

Each worker has a socket of its own (SO_REUSEPORT; the kernel spreads the connections), a pipe to this process
and its part of the metrics. What a worker runs is passed in: this module knows processes only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from gateway.access.tokens import TokenTable
from gateway.domain.errors import BackendUnavailable
from gateway.processes.tasks import first_of
from gateway.processes.triton_events import TritonEventRelay
from gateway.processes.worker_control import WorkerSpec
from gateway.processes.worker_process import CONTEXT, WorkerProcess, WorkerState
from gateway.server.bind import another
from gateway.settings import ConfigurationError, Settings
from gateway.telemetry.shared_metrics import SharedMetrics, restart_counter, triton_restart_counter

_log = logging.getLogger("tritonflare.workers")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 10.0
"""A worker that lived this long did not fail at its start: the next one starts after the shortest pause."""
_EXIT_S = 5.0
"""Time to end after the drain; then a worker is killed."""


class WorkerPool:
    """Keeps ``settings.workers`` processes running.

    Args:
        settings: the settings.
        work: what a worker runs: a function of a module, so that another process can find it.
        reserved: the port, from ``bind(…, shared=True)``.
        stop: set it to have the workers drain and end.
        at_once: set it to have them end without draining.
        triton_events: relays the events of an embedded Triton to this pool.
        tokens: kept up to date by the caller; each worker gets them as they are at its start.
    """

    def __init__(
        self,
        settings: Settings,
        work: Callable[[WorkerSpec], None],
        reserved: socket.socket,
        stop: asyncio.Event,
        at_once: asyncio.Event,
        triton_events: TritonEventRelay | None = None,
        tokens: TokenTable | None = None,
    ) -> None:
        self._settings = settings
        self._work = work
        self._reserved = reserved
        self._stop = stop
        self._at_once = at_once
        self._triton_events = triton_events
        self._tokens = tokens
        self._ready: set[int] = set()
        self._started = False
        self._workers: set[WorkerProcess] = set()
        self.triton_restarted: Callable[[str], None] = lambda reason: None
        """See `TritonEvents`; replaced by the counter once the metrics have a folder."""

    async def run(self, on_started: Callable[[], None]) -> None:
        """Return when ``stop`` was set and no worker is left.

        Args:
            on_started: called once, when each worker has been ready.

        Raises:
            ConfigurationError: a worker could not start because of it, before all had started.
        """
        metrics = SharedMetrics.somewhere()
        metrics.keep_as("supervisor")
        restarted = restart_counter(CollectorRegistry())
        self.triton_restarted = triton_restart_counter(CollectorRegistry())
        if self._triton_events is not None:
            self._triton_events.connect(self)
        keeping = [
            asyncio.create_task(self._keep(number, metrics, on_started, restarted))
            for number in range(self._settings.workers)
        ]
        try:
            await asyncio.gather(*keeping)
        except BaseException:
            self._stop.set()
            self._at_once.set()
            raise
        finally:
            await asyncio.gather(*keeping, return_exceptions=True)
            metrics.remove()

    async def hand_over(self, url: str) -> None:
        """Have all workers call another Triton; if any can, those that cannot are replaced.

        Returns when no worker is left that calls the present one.

        Raises:
            BackendUnavailable: no worker can reach it; all go on as before, except those that did not
                answer: they are replaced.
        """
        longest_s = self._settings.request_timeout_s + _EXIT_S
        asked = list(self._workers)
        outcomes = await asyncio.gather(*(worker.hand_over(url, longest_s) for worker in asked))
        succeeded = any(outcomes)
        if succeeded:
            self._settings = self._settings.model_copy(update={"triton_url": url})
            # Also workers that started meanwhile, with the address before.
            failed = [worker for worker in self._workers if worker.url != url]
        else:
            failed = [worker for worker, outcome in zip(asked, outcomes, strict=True) if outcome is None]
        for worker in failed:
            if worker in self._workers:
                _log.error("worker %d failed the handover to %s; replacing it", worker.number, url)
                worker.drain()
        await self._wait_for_drained(failed)
        if not succeeded:
            raise BackendUnavailable

    async def _wait_for_drained(self, workers: Sequence[WorkerProcess]) -> None:
        """Wait for workers that drain; kill those that do not end in time."""
        ending = [asyncio.create_task(worker.ended.wait()) for worker in workers]
        if ending:
            settings = self._settings
            longest_s = settings.shutdown_delay_s + settings.drain_timeout_s + _EXIT_S
            await asyncio.wait(ending, timeout=longest_s)
            for worker in workers:
                worker.kill()
            await asyncio.wait(ending)

    async def _keep(
        self,
        number: int,
        metrics: SharedMetrics,
        on_started: Callable[[], None],
        restarted: Callable[[], None],
    ) -> None:
        """Run one worker after the other under this number."""
        loop = asyncio.get_running_loop()
        failures = 0
        replaces = False
        while not self._stop.is_set():
            began = loop.time()
            reason = await self._run_worker(number, metrics, on_started, replaces)
            if self._stop.is_set():
                return
            failures = 0 if loop.time() - began > _STEADY_S else failures + 1
            pause_s = min(_FIRST_PAUSE_S * 2 ** min(failures, 10), _LONGEST_PAUSE_S)
            _log.error("worker %d ended (%s); restarting it in %.1f s", number, reason, pause_s)
            restarted()
            replaces = True
            await first_of(self._stop, timeout_s=pause_s)

    async def _run_worker(
        self, number: int, metrics: SharedMetrics, on_started: Callable[[], None], replaces: bool
    ) -> str:
        """Run one worker; return why it ended."""
        try:
            near, far = CONTEXT.Pipe()
        except OSError as error:
            return error.strerror or "no pipe could be made"
        try:
            sock = another(self._reserved)
            spec = WorkerSpec(number, self._settings, sock, far, metrics, replaces, self._tokens)
            worker = WorkerProcess(self._work, near, spec)
        except OSError as error:
            near.close()
            far.close()
            return error.strerror or "no process could be started"
        self._workers.add(worker)
        try:
            await self._watch(worker, on_started)
        finally:
            self._workers.discard(worker)
            status = worker.end()
            metrics.forget_gauges(str(number))
        if worker.refusal is not None and not self._started:
            raise ConfigurationError(worker.refusal)
        return worker.refusal or (f"signal {-status}" if status < 0 else f"status {status}")

    async def _watch(self, worker: WorkerProcess, on_started: Callable[[], None]) -> None:
        """Handle the worker's messages; return when it has ended or may be killed."""
        loop = asyncio.get_running_loop()

        def on_message() -> None:
            if not worker.read_message():
                loop.remove_reader(worker.link)
            elif worker.state is WorkerState.SERVING:
                self._ready.add(worker.number)
                if len(self._ready) == self._settings.workers and not self._started:
                    self._started = True
                    on_started()

        ended = asyncio.Event()
        loop.add_reader(worker.link, on_message)
        loop.add_reader(worker.sentinel, ended.set)
        killing = asyncio.create_task(self._kill_when_stuck(worker))
        try:
            await first_of(ended, self._stop)
            worker.drain()
            longest_s = self._settings.shutdown_delay_s + self._settings.drain_timeout_s + _EXIT_S
            await first_of(ended, self._at_once, timeout_s=longest_s)
            worker.end_now()
            await first_of(ended, timeout_s=_EXIT_S)
            # Its last message may have arrived together with its end.
            worker.read_message()
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            loop.remove_reader(worker.sentinel)
            loop.remove_reader(worker.link)

    async def _kill_when_stuck(self, worker: WorkerProcess) -> None:
        """Kill a worker whose event loop is stuck: its share of the connections would never be answered."""
        silent_s = await worker.wait_until_stuck(self._settings.worker_timeout_s)
        _log.error("worker %d has answered no heartbeat for %g s; killing it", worker.number, silent_s)
        worker.kill()

"""Several processes on one port: starts them, replaces those that end, stops them in order.

Each has a socket of its own (SO_REUSEPORT; the kernel spreads the connections), a pipe to this process and
its part of the metrics. What serves is handed in: this module knows processes only.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path

from prometheus_client import CollectorRegistry

from gateway.domain.errors import AiError, BackendUnavailable
from gateway.http.shared_metrics import SharedMetrics, restart_counter, triton_restart_counter
from gateway.serving import another, first_of
from gateway.settings import ConfigurationError, Settings
from gateway.tokens import TokenTable
from gateway.upstream import Upstream

_log = logging.getLogger("tritonflare.workers")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 10.0
"""A worker that lived this long did not fail at its start: the next comes without a longer pause."""
_EXIT_S = 5.0
"""What a worker gets to end when it should have ended; then it is killed."""
_HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Not fork: gRPC and uvloop have threads and descriptors that no child may inherit.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Move:
    """To a worker: call another Triton. And back: done, or not."""

    url: str
    done: bool = False


@dataclass(frozen=True)
class Post:
    """What a worker is given; everything of it travels through a pipe, nothing on the command line."""

    number: int
    settings: Settings
    sock: socket.socket
    """Bound; it gets connections once it listens."""
    link: Connection
    """Takes None when ready, a sentence in case of a ConfigurationError, and each Move again; what comes is
    a Move, or None for: end at once. It closes with the supervisor."""
    metrics: SharedMetrics
    replaces: bool
    """Others serve already, or did."""
    tokens: TokenTable | None = None
    """As the supervisor read them last."""


class Supervisor:
    """Keeps ``settings.workers`` processes running.

    Args:
        settings: the settings.
        work: what a worker runs: a function of a module, so that another process can find it.
        reserved: the port, from ``bind(…, shared=True)``.
        stop: set it to have the workers drain and end.
        at_once: set it to have them end without waiting for anybody.
        upstream: tells what becomes of Triton.
        tokens: kept up to date by whoever gives them; each worker gets them as they are at its start.
    """

    def __init__(
        self,
        settings: Settings,
        work: Callable[[Post], None],
        reserved: socket.socket,
        stop: asyncio.Event,
        at_once: asyncio.Event,
        upstream: Upstream | None = None,
        tokens: TokenTable | None = None,
    ) -> None:
        self._settings = settings
        self._work = work
        self._reserved = reserved
        self._stop = stop
        self._at_once = at_once
        self._upstream = upstream
        self._tokens = tokens
        self._ready: set[int] = set()
        self._started = False
        self._workers: set[_Worker] = set()
        self.triton_restarted: Callable[[str], None] = lambda reason: None

    async def run(self, on_started: Callable[[], None]) -> None:
        """Return when ``stop`` was set and no worker is left.

        Args:
            on_started: called once, when each worker has been ready.

        Raises:
            ConfigurationError: a worker could not start because of it, before all had started.
        """
        metrics = SharedMetrics(Path(tempfile.mkdtemp(prefix="tritonflare-metrics-")))
        metrics.keep_as("supervisor")
        restarted = restart_counter(CollectorRegistry())
        self.triton_restarted = triton_restart_counter(CollectorRegistry())
        if self._upstream is not None:
            self._upstream.connect(self)
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

    async def move(self, url: str) -> None:
        """Have all workers call another Triton; if any can, those that cannot are replaced by ones that do.

        Returns when no worker is left that calls the present one.

        Raises:
            BackendUnavailable: none of them can reach it; all go on as they were, but for those that did not
                answer: they are replaced.
        """
        longest_s = self._settings.request_timeout_s + _EXIT_S
        asked = list(self._workers)
        outcomes = await asyncio.gather(*(worker.move(url, longest_s) for worker in asked))
        moved = any(outcomes)
        if moved:
            self._settings = self._settings.model_copy(update={"triton_url": url})
            # Those too that have started meanwhile, before the address was theirs.
            wrong = [worker for worker in self._workers if worker.url != url]
        else:
            wrong = [worker for worker, outcome in zip(asked, outcomes, strict=True) if outcome is None]
        for worker in wrong:
            if worker in self._workers:
                _log.error("worker %d could not change over to the other Triton", worker.number)
                worker.drain()
        await self._see_out(wrong)
        if not moved:
            raise BackendUnavailable

    async def _see_out(self, workers: Sequence[_Worker]) -> None:
        """Wait for workers that were told to drain; kill those that do not end."""
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
        """Run one worker after the other."""
        loop = asyncio.get_running_loop()
        failures = 0
        replaces = False
        while not self._stop.is_set():
            began = loop.time()
            reason = await self._live(number, metrics, on_started, replaces)
            if self._stop.is_set():
                return
            failures = 0 if loop.time() - began > _STEADY_S else failures + 1
            pause_s = min(_FIRST_PAUSE_S * 2 ** min(failures, 10), _LONGEST_PAUSE_S)
            _log.error("worker %d ended (%s); the next starts in %.1f s", number, reason, pause_s)
            restarted()
            replaces = True
            await first_of(self._stop, timeout_s=pause_s)

    async def _live(
        self, number: int, metrics: SharedMetrics, on_started: Callable[[], None], replaces: bool
    ) -> str:
        """Run one worker; return why it ended."""
        try:
            near, far = _CONTEXT.Pipe()
        except OSError as error:
            return error.strerror or "no pipe could be made"
        try:
            sock = another(self._reserved)
            post = Post(number, self._settings, sock, far, metrics, replaces, self._tokens)
            worker = _Worker(self._work, near, post)
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

    async def _watch(self, worker: _Worker, on_started: Callable[[], None]) -> None:
        """Return when the worker has ended or may be killed."""
        loop = asyncio.get_running_loop()

        def heard() -> None:
            if not worker.hear():
                loop.remove_reader(worker.link)
            elif worker.ready:
                self._ready.add(worker.number)
                if len(self._ready) == self._settings.workers and not self._started:
                    self._started = True
                    on_started()

        ended = asyncio.Event()
        loop.add_reader(worker.link, heard)
        loop.add_reader(worker.sentinel, ended.set)
        try:
            await first_of(ended, self._stop)
            worker.drain()
            longest_s = self._settings.shutdown_delay_s + self._settings.drain_timeout_s + _EXIT_S
            await first_of(ended, self._at_once, timeout_s=longest_s)
            worker.end_at_once()
            await first_of(ended, timeout_s=_EXIT_S)
            # Its last words may have come together with its end.
            worker.hear()
        finally:
            loop.remove_reader(worker.sentinel)
            loop.remove_reader(worker.link)


class _Worker:
    """One process."""

    def __init__(self, work: Callable[[Post], None], link: Connection, post: Post) -> None:
        self.link = link
        self.number = post.number
        self.ready = False
        self.refusal: str | None = None
        self._moved = asyncio.Event()
        self._has_moved = False
        self.url = post.settings.triton_url
        """Of the Triton that it calls."""
        self.ended = asyncio.Event()
        self._process: SpawnProcess = _CONTEXT.Process(target=work, args=(post,))
        with post.sock, post.link, _signals_held_back():
            self._process.start()
        self.sentinel = self._process.sentinel

    def hear(self) -> bool:
        """Read one message if there is one; tell whether there may be more."""
        with suppress(EOFError, OSError):
            if self.link.poll():
                said = self.link.recv()
                if isinstance(said, Move):
                    self._has_moved = said.done
                    self._moved.set()
                elif said is None:
                    self.ready = True
                else:
                    self.refusal = said
                return self.refusal is None
        return False

    async def move(self, url: str, longest_s: float) -> bool | None:
        """Tell it to call another Triton.

        Returns:
            Whether it does, and has nothing under way at the one before; None if it has not said.
        """
        self._moved.clear()
        with suppress(OSError):
            self.link.send(Move(url))
            await first_of(self._moved, timeout_s=longest_s)
        if self.ended.is_set() or not self._moved.is_set():
            return None
        if self._has_moved:
            self.url = url
        return self._has_moved

    def drain(self) -> None:
        if self._process.is_alive():
            self._process.terminate()

    def end_at_once(self) -> None:
        with suppress(OSError):
            self.link.send(None)

    def kill(self) -> None:
        if not self.ended.is_set():
            self._process.kill()

    def end(self) -> int:
        """Kill what is left of it; return its exit status, negative for a signal."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        status = self._process.exitcode
        self._process.close()
        self.link.close()
        self.ended.set()
        self._moved.set()
        return status if status is not None else 0


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let a process that starts inside wait with these signals until it can handle them."""
    ensure_running()  # starting it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def obeying(
    post: Post,
    stop: asyncio.Event,
    at_once: asyncio.Event,
    move: Callable[[str], Awaitable[None]] | None = None,
) -> Iterator[None]:
    """Inside a worker: stop on SIGTERM and when the supervisor is gone, at once or ``move`` when it says so.

    A terminal sends SIGINT and SIGHUP to all processes, and a service manager SIGTERM: the supervisor alone
    decides whether that was the second one.
    """
    loop = asyncio.get_running_loop()
    orphaned = False
    moving: set[asyncio.Task[None]] = set()

    async def obey(order: Move) -> None:
        done = False
        with suppress(AiError):
            if move is not None:
                await move(order.url)
                done = True
        with suppress(OSError):
            post.link.send(Move(order.url, done))

    def heard() -> None:
        nonlocal orphaned
        try:
            order = post.link.recv()
        except (EOFError, OSError):
            orphaned = True
            loop.remove_reader(post.link)
            stop.set()
            return
        if isinstance(order, Move):
            task = loop.create_task(obey(order))
            moving.add(task)
            task.add_done_callback(moving.discard)
        else:
            stop.set()
            at_once.set()

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
    loop.add_reader(post.link, heard)
    try:
        yield
    finally:
        loop.remove_reader(post.link)
        loop.remove_signal_handler(signal.SIGTERM)
        for task in moving:
            task.cancel()
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        if orphaned:
            post.metrics.remove()


def say(post: Post, refusal: str | None) -> None:
    """Inside a worker: tell the supervisor that it is ready, or why it cannot be."""
    with suppress(OSError):
        post.link.send(refusal)

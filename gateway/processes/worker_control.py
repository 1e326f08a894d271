"""Inside a worker: its specification, and the pipe through which the worker pool controls it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from gateway.access.tokens import TokenTable
from gateway.domain.errors import AiError
from gateway.processes.messages import EndNow, FromWorker, HandedOver, HandOver, Heartbeat, ToWorker
from gateway.settings import Settings
from gateway.telemetry.shared_metrics import SharedMetrics

BLOCKED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that stay pending from the start of the process until it can handle them."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is started with; all of it travels through a pipe, nothing on the command line."""

    number: int
    settings: Settings
    sock: socket.socket
    """Bound; it gets connections once the worker listens."""
    link: Connection
    """Receives `ToWorker` messages and sends `FromWorker` ones; it closes when the pool's process ends."""
    metrics: SharedMetrics
    replaces: bool
    """Whether it replaces an earlier worker of this number, so that others serve already."""
    tokens: TokenTable | None = None
    """As the pool's process read them last."""


def report(spec: WorkerSpec, message: FromWorker) -> None:
    """Send a message to the pool, unless its process has ended."""
    with suppress(OSError):
        spec.link.send(message)


@contextmanager
def worker_control(
    spec: WorkerSpec,
    stop: asyncio.Event,
    at_once: asyncio.Event,
    hand_over: Callable[[str], Awaitable[None]] | None = None,
) -> Iterator[None]:
    """Let the pool control this worker.

    A terminal sends SIGINT and SIGHUP to all processes, and a service manager SIGTERM. The pool alone counts
    them, so a worker ignores the first two and never treats a second SIGTERM as more than the first.

    Args:
        spec: the worker's own.
        stop: set on SIGTERM, and when the pool's process has ended.
        at_once: set, together with ``stop``, on `EndNow`.
        hand_over: see `TritonEvents.hand_over`; None if the worker cannot.
    """
    loop = asyncio.get_running_loop()
    control = _Control(spec, stop, at_once, hand_over)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)
    loop.add_reader(spec.link, control.read)
    try:
        yield
    finally:
        loop.remove_reader(spec.link)
        loop.remove_signal_handler(signal.SIGTERM)
        control.cancel()
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        if control.is_orphaned:
            spec.metrics.remove()


class _Control:
    """Handles the messages of the pool."""

    def __init__(
        self,
        spec: WorkerSpec,
        stop: asyncio.Event,
        at_once: asyncio.Event,
        hand_over: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        self._spec = spec
        self._stop = stop
        self._at_once = at_once
        self._hand_over = hand_over
        self._handovers: set[asyncio.Task[None]] = set()
        self.is_orphaned = False
        """Whether the pool's process has ended."""

    def read(self) -> None:
        """Handle the next message."""
        try:
            message: ToWorker = self._spec.link.recv()
        except (EOFError, OSError):
            self.is_orphaned = True
            asyncio.get_running_loop().remove_reader(self._spec.link)
            self._stop.set()
            return
        match message:
            case Heartbeat():
                report(self._spec, message)
            case HandOver(url):
                task = asyncio.get_running_loop().create_task(self._handle_handover(url))
                self._handovers.add(task)
                task.add_done_callback(self._handovers.discard)
            case EndNow():
                self._stop.set()
                self._at_once.set()

    async def _handle_handover(self, url: str) -> None:
        succeeded = False
        with suppress(AiError):
            if self._hand_over is not None:
                await self._hand_over(url)
                succeeded = True
        report(self._spec, HandedOver(url, succeeded))

    def cancel(self) -> None:
        """Cancel what is under way."""
        for task in self._handovers:
            task.cancel()

"""Inside a worker: what it is given, and how it obeys the supervisor and answers its heartbeat."""

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
from gateway.settings import Settings
from gateway.telemetry.shared_metrics import SharedMetrics

HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that wait from the start of the process until it can handle them."""


@dataclass(frozen=True)
class Move:
    """To a worker: call another Triton. And back: done, or not."""

    url: str
    done: bool = False


@dataclass(frozen=True)
class Heartbeat:
    """To a worker, and back as soon as its event loop has a turn."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is given; everything of it travels through a pipe, nothing on the command line."""

    number: int
    settings: Settings
    sock: socket.socket
    """Bound; it gets connections once it listens."""
    link: Connection
    """Takes None when ready, a sentence in case of a ConfigurationError, and each Move and Heartbeat again;
    what comes is one of these, or None for: end at once. It closes with the supervisor."""
    metrics: SharedMetrics
    replaces: bool
    """Others serve already, or did."""
    tokens: TokenTable | None = None
    """As the supervisor read them last."""


@contextmanager
def worker_control(
    spec: WorkerSpec,
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
            spec.link.send(Move(order.url, done))

    def heard() -> None:
        nonlocal orphaned
        try:
            order = spec.link.recv()
        except (EOFError, OSError):
            orphaned = True
            loop.remove_reader(spec.link)
            stop.set()
            return
        if isinstance(order, Heartbeat):
            with suppress(OSError):
                spec.link.send(order)
        elif isinstance(order, Move):
            task = loop.create_task(obey(order))
            moving.add(task)
            task.add_done_callback(moving.discard)
        else:
            stop.set()
            at_once.set()

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    loop.add_reader(spec.link, heard)
    try:
        yield
    finally:
        loop.remove_reader(spec.link)
        loop.remove_signal_handler(signal.SIGTERM)
        for task in moving:
            task.cancel()
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        if orphaned:
            spec.metrics.remove()


def report(spec: WorkerSpec, refusal: str | None) -> None:
    """Inside a worker: tell the supervisor that it is ready, or why it cannot be."""
    with suppress(OSError):
        spec.link.send(refusal)

"""One worker as the pool sees it: its process, its state, its messages, and whether it is stuck."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running

from gateway.processes.messages import (
    EndNow,
    FromWorker,
    HandedOver,
    HandOver,
    Heartbeat,
    Ready,
    Refused,
    ToWorker,
)
from gateway.processes.tasks import first_of
from gateway.processes.worker_control import BLOCKED_SIGNALS, WorkerSpec

BEAT_S = 1.0
"""Pause between two heartbeats."""
START_S = 60.0
"""Time for the answer to the first heartbeat: the worker loads its modules, at the same time as others."""
# Not fork: gRPC and uvloop have threads and descriptors that no child may inherit.
CONTEXT = multiprocessing.get_context("spawn")


class WorkerState(Enum):
    """The life of a worker; it may end in every state."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    """It was asked to answer what it has accepted, and to end."""
    ENDED = "ended"


class WorkerProcess:
    """One process."""

    def __init__(self, work: Callable[[WorkerSpec], None], link: Connection, spec: WorkerSpec) -> None:
        self.link = link
        self.number = spec.number
        self.state = WorkerState.STARTING
        self.refusal: str | None = None
        """Why it cannot start, once it has reported so."""
        self.url = spec.settings.triton_url
        """Of the Triton that it calls."""
        self.ended = asyncio.Event()
        self._handover_done = asyncio.Event()
        self._handover_succeeded = False
        self._missed_beats = 0
        """Heartbeats that were due since the last answer."""
        self._has_answered = False
        self._process: SpawnProcess = CONTEXT.Process(target=work, args=(spec,))
        with spec.sock, spec.link, _signals_blocked():
            self._process.start()
        self.sentinel = self._process.sentinel

    def read_message(self) -> bool:
        """Handle one message if there is one; return whether there may be more."""
        with suppress(EOFError, OSError):
            if self.link.poll():
                self._handle(self.link.recv())
                return self.refusal is None
        return False

    def _handle(self, message: FromWorker) -> None:
        match message:
            case Heartbeat():
                self._missed_beats, self._has_answered = 0, True
            case Ready():
                if self.state is WorkerState.STARTING:
                    self.state = WorkerState.SERVING
            case HandedOver():
                self._handover_succeeded = message.succeeded
                self._handover_done.set()
            case Refused():
                self.refusal = message.reason

    def _send(self, message: ToWorker) -> None:
        with suppress(OSError):  # it has ended
            self.link.send(message)

    async def hand_over(self, url: str, longest_s: float) -> bool | None:
        """Have it call another Triton.

        Returns:
            Whether it does, and has nothing under way at the one before; None without an answer within
            ``longest_s`` seconds.
        """
        self._handover_done.clear()
        self._send(HandOver(url))
        await first_of(self._handover_done, timeout_s=longest_s)
        if self.state is WorkerState.ENDED or not self._handover_done.is_set():
            return None
        if self._handover_succeeded:
            self.url = url
        return self._handover_succeeded

    async def wait_until_stuck(self, timeout_s: float) -> float:
        """Send heartbeats; return when none was answered for ``timeout_s``, with the seconds that were.

        Beats are counted, not seconds: a pool that was stopped itself, with a suspended machine or by the
        signal that stopped its workers, has missed nothing. At most one is on its way, so a worker that
        does not read cannot fill the pipe.
        """
        while self._missed_beats < (most := _beats(timeout_s, starting=not self._has_answered)):
            if not self._missed_beats:
                self._send(Heartbeat())
            self._missed_beats += 1
            await asyncio.sleep(BEAT_S)
        return most * BEAT_S

    def drain(self) -> None:
        """Have it answer what it has accepted, and end."""
        if self._process.is_alive():
            self.state = WorkerState.DRAINING
            self._process.terminate()

    def end_now(self) -> None:
        """Have it end without draining."""
        self._send(EndNow())

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        if self.state is not WorkerState.ENDED:
            self._process.kill()

    def end(self) -> int:
        """Kill what is left of it; return its exit status, negative for a signal."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        status = self._process.exitcode
        self._process.close()
        self.link.close()
        self.state = WorkerState.ENDED
        self.ended.set()
        self._handover_done.set()
        return status if status is not None else 0


def _beats(timeout_s: float, *, starting: bool) -> int:
    return max(2, math.ceil((max(START_S, timeout_s) if starting else timeout_s) / BEAT_S))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start a process inside with these signals blocked, until it can handle them."""
    ensure_running()  # starting it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

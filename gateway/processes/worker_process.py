"""One worker as the supervisor sees it: its process, what it says, and whether it is stuck."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running

from gateway.processes.tasks import first_of
from gateway.processes.worker_control import HELD_BACK, Heartbeat, Move, WorkerSpec

BEAT_S = 1.0
"""Pause between two heartbeats."""
START_S = 60.0
"""What a worker gets to answer the first one: it has modules to load, beside others that do the same."""
# Not fork: gRPC and uvloop have threads and descriptors that no child may inherit.
CONTEXT = multiprocessing.get_context("spawn")


class WorkerProcess:
    """One process."""

    def __init__(self, work: Callable[[WorkerSpec], None], link: Connection, spec: WorkerSpec) -> None:
        self.link = link
        self.number = spec.number
        self.ready = False
        self.refusal: str | None = None
        self._moved = asyncio.Event()
        self._has_moved = False
        self.url = spec.settings.triton_url
        """Of the Triton that it calls."""
        self.ended = asyncio.Event()
        self._unanswered = 0
        """Heartbeats that were due since the last answer."""
        self._has_answered = False
        self._process: SpawnProcess = CONTEXT.Process(target=work, args=(spec,))
        with spec.sock, spec.link, _signals_held_back():
            self._process.start()
        self.sentinel = self._process.sentinel

    def hear(self) -> bool:
        """Read one message if there is one; tell whether there may be more."""
        with suppress(EOFError, OSError):
            if self.link.poll():
                said = self.link.recv()
                if isinstance(said, Heartbeat):
                    self._unanswered, self._has_answered = 0, True
                elif isinstance(said, Move):
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

    async def wait_until_stuck(self, timeout_s: float) -> float:
        """Send heartbeats; when none was answered for so long, return how long that is.

        Beats are counted, not seconds: a supervisor that was stopped itself, with a suspended machine or by
        the signal that stopped its workers, has missed nothing. One at most is on its way, so a worker that
        is not read from cannot fill the pipe.
        """
        while self._unanswered < (most := _beats(timeout_s, starting=not self._has_answered)):
            if not self._unanswered:
                with suppress(OSError):
                    self.link.send(Heartbeat())
            self._unanswered += 1
            await asyncio.sleep(BEAT_S)
        return most * BEAT_S

    def drain(self) -> None:
        """Have it answer what it has accepted, and end."""
        if self._process.is_alive():
            self._process.terminate()

    def end_at_once(self) -> None:
        """Have it end without waiting for anybody."""
        with suppress(OSError):
            self.link.send(None)

    def kill(self) -> None:
        """End it, whatever it does."""
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


def _beats(timeout_s: float, *, starting: bool) -> int:
    return max(2, math.ceil((max(START_S, timeout_s) if starting else timeout_s) / BEAT_S))


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let a process that starts inside wait with these signals until it can handle them."""
    ensure_running()  # starting it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

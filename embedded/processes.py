"""The processes of a running server: tritonserver and its python stubs, watched without polling."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat, counted from the closing bracket of the command.
_SESSION, _USER_TICKS, _SYSTEM_TICKS = 3, 11, 12


class Processes:
    """Tritonserver and its children, as they are at construction.

    On Triton 2.51 a stub that ends is never replaced, and its server still reports itself ready.

    Args:
        server: process id of tritonserver, which leads a session of its own.
    """

    def __init__(self, server: int) -> None:
        self._server = os.pidfd_open(server)
        self._stubs = dict(_opened(_session(server) - {server}))

    def close(self) -> None:
        """Stop watching."""
        for fd in (self._server, *self._stubs.values()):
            os.close(fd)

    def wait(self, wake: int, timeout_s: float) -> None:
        """Return when a process has ended, the descriptor ``wake`` is readable, or the timeout is over."""
        poll = select.poll()
        for fd in (wake, self._server, *self._stubs.values()):
            poll.register(fd, select.POLLIN)
        poll.poll(max(0.0, 1000 * timeout_s))

    @property
    def server_ended(self) -> bool:
        """Whether tritonserver has."""
        return _ended(self._server)

    @property
    def stub_ended(self) -> bool:
        """Whether any stub has."""
        return any(map(_ended, self._stubs.values()))

    def stub_cpu_s(self) -> float:
        """CPU time that the stubs have used."""
        ticks = 0
        for stub in self._stubs:
            with suppress(OSError):
                fields = _stat(stub)
                ticks += int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
        return ticks / _TICKS_PER_S


def _ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _session(leader: int) -> set[int]:
    """The processes of a session."""
    found = set()
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it may have ended
                if int(_stat(int(entry.name))[_SESSION]) == leader:
                    found.add(int(entry.name))
    return found


def _stat(process: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` behind the name, which may contain any character."""
    return (PROC / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _opened(processes: set[int]) -> Iterator[tuple[int, int]]:
    for process in processes:
        with suppress(ProcessLookupError):
            yield process, os.pidfd_open(process)

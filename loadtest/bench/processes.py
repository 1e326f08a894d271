"""CPU time and memory of a program with all its children, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ProcessTree:
    """A process and everything below it, looked up anew each time.

    ``without`` leaves out processes whose command line holds this text. ``proc`` is where proc(5) is mounted.
    """

    pid: int
    without: str | None = None
    proc: Path = Path("/proc")

    def cpu_s(self) -> float:
        """User and system time so far, in seconds, that of children that have ended included."""
        return sum(sum(map(int, stat[11:15])) for _, stat in self._stats()) / _TICKS_PER_S

    def rss_bytes(self) -> int:
        """Resident memory; pages that processes share count for each of them."""
        return sum(int(stat[21]) for _, stat in self._stats()) * _PAGE_BYTES

    def pids(self) -> set[int]:
        """All its processes now."""
        return {pid for pid, _ in self._stats()}

    def _stats(self) -> Iterator[tuple[int, list[str]]]:
        everything = dict(_all_stats(self.proc))
        children: dict[int, list[int]] = {}
        for pid, stat in everything.items():
            children.setdefault(int(stat[1]), []).append(pid)
        waiting = [self.pid]
        while waiting:
            pid = waiting.pop()
            waiting += children.get(pid, ())
            if pid in everything and not self._left_out(pid):
                yield pid, everything[pid]

    def _left_out(self, pid: int) -> bool:
        if self.without is None:
            return False
        with suppress(OSError):
            return self.without.encode() in (self.proc / str(pid) / "cmdline").read_bytes()
        return True


def _all_stats(proc: Path) -> Iterator[tuple[int, list[str]]]:
    """Every process with the fields of its ``stat`` from the third, the state, on (proc(5))."""
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it may have ended just now
                # The second field is the name in brackets, which may hold spaces and brackets itself.
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()


def cpu_of_us_s() -> float:
    """CPU time of this process and of the children it has waited for, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

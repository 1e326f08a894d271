"""The processes of a container as its host has them: a crash or the OOM killer ends them from there.

``docker kill`` is no stand-in for a crash: for the restart policy it is a manual stop. Needs an engine on
this host, and root.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.containers.engine import Engine

_CGROUPS = Path("/sys/fs/cgroup")


def main_process(engine: Engine, container: str) -> psutil.Process:
    """Process 1 of a running container."""
    return psutil.Process(int(engine.inspect(container)["State"]["Pid"]))


def find_process(engine: Engine, container: str, *words: str) -> psutil.Process:
    """The last of the processes below process 1 whose command lines have all words.

    Raises:
        LookupError: there is none.
    """
    found = main_process(engine, container).children(recursive=True)
    for process in reversed(found):
        line = " ".join(process.cmdline())
        if all(word in line for word in words):
            return process
    raise LookupError(f"no process with {words} in {[process.cmdline() for process in found]}")


def kill(process: psutil.Process) -> None:
    """Send SIGKILL."""
    process.send_signal(signal.SIGKILL)


def zombies(engine: Engine, container: str) -> list[psutil.Process]:
    """Processes of the container that ended and were not reaped."""
    below = main_process(engine, container).children(recursive=True)
    return [process for process in below if process.status() == psutil.STATUS_ZOMBIE]


@dataclass(frozen=True)
class Usage:
    """What a container's cgroup has counted since it started.

    peak_bytes: most memory, page cache included.
    anonymous_bytes: memory now that is not page cache.
    oom_kills: processes that were killed for want of memory.
    periods: CPU periods in which something ran; counted where there is a quota.
    throttled: those in which the quota was used up.
    throttled_s: how long its threads waited for the next period, all together.
    """

    peak_bytes: int
    anonymous_bytes: int
    oom_kills: int
    periods: int
    throttled: int
    throttled_s: float


def usage(process: psutil.Process) -> Usage:
    """Read the cgroups of a container's process, of version 1 or 2."""
    lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
    paths = {name: path.strip("/") for line in lines for _, name, path in [line.split(":", 2)]}
    if "memory" not in paths:
        folder = _CGROUPS / paths[""]
        cpu, memory = _numbers(folder / "cpu.stat"), _numbers(folder / "memory.stat")
        return Usage(
            peak_bytes=int((folder / "memory.peak").read_text()),
            anonymous_bytes=memory["anon"],
            oom_kills=_numbers(folder / "memory.events")["oom_kill"],
            periods=cpu.get("nr_periods", 0),
            throttled=cpu.get("nr_throttled", 0),
            throttled_s=cpu.get("throttled_usec", 0) / 1e6,
        )
    memory_folder = _CGROUPS / "memory" / paths["memory"]
    name = next(name for name in paths if "cpu" in name.split(","))
    cpu = _numbers(_CGROUPS / name / paths[name] / "cpu.stat")
    return Usage(
        peak_bytes=int((memory_folder / "memory.max_usage_in_bytes").read_text()),
        anonymous_bytes=_numbers(memory_folder / "memory.stat")["total_rss"],
        oom_kills=_numbers(memory_folder / "memory.oom_control").get("oom_kill", 0),
        periods=cpu.get("nr_periods", 0),
        throttled=cpu.get("nr_throttled", 0),
        throttled_s=cpu.get("throttled_time", 0) / 1e9,
    )


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}

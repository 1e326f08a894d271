"""Metrics of several processes, added up in any of them."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.telemetry.metric_files import MetricFile, Room

_PREFIX = "tritonflare-metrics-"
_LOCK = "lock"


@dataclass(frozen=True)
class SharedMetrics:
    """A folder in which each process keeps its values in files (prometheus_client's multiprocess mode)."""

    folder: Path
    """Made by the first process that writes a value; without room on the disk, serving goes on without it."""
    room: Room = field(default_factory=Room)
    lock: int | None = None
    """Descriptor of the folder's lock, which ends with the supervisor; None in a folder made later."""

    @classmethod
    def somewhere(cls) -> SharedMetrics:
        """Choose a new folder for temporary files, and remove those of killed servers."""
        _sweep()
        folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"
        return cls(folder, lock=_make_locked(folder))

    def __reduce__(self) -> tuple[type[SharedMetrics], tuple[Path, Room]]:
        """Travel to a worker without the lock: the number of a descriptor means another file there."""
        return SharedMetrics, (self.folder, self.room)

    def keep_as(self, process: str) -> None:
        """Store the values of all metrics that this process declares from now on there.

        Args:
            process: names their owner. Not a process id: a replacement continues the counts of the process
                before, and each replacement adds no more files.
        """
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder)
        setattr(values, "MmapedDict", partial(MetricFile, room=self.room))  # noqa: B010 (not exported)
        values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]

    def registry(self) -> CollectorRegistry | None:
        """Return a registry that reads the sums; None if they are not available."""
        if self.room.is_missing or not self.folder.is_dir():
            return None
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.folder))  # type: ignore[no-untyped-call]
        return registry

    def forget_gauges(self, process: str) -> None:
        """Drop the gauges of a process that has ended; its counters stay."""
        mark_process_dead(process, str(self.folder))  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """Remove the folder; this process must not count any more."""
        values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.lock is not None:
            os.close(self.lock)


def _make_locked(folder: Path) -> int | None:
    """Make the folder with a lock in it that is held; None where that cannot be done, as on a full disk.

    It gets its name when the lock is held, so that no other server takes it for one of a killed server.
    """
    new = folder.with_name(f".{folder.name}")
    lock: int | None = None
    try:
        new.mkdir(mode=0o700)
        lock = os.open(new / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(folder)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        return None
    return lock


def _sweep() -> None:
    """Remove the folders whose lock nobody holds; one without a lock may be in use."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


RESTART_REASONS = ("ended", "stub", "failing", "wedged")


def triton_restart_counter(registry: CollectorRegistry) -> Callable[[str], None]:
    """Declare the number of Triton's restarts by reason; the returned function counts one."""
    counter = Counter(
        "tritonflare_triton_restarts",
        "Starts of the embedded Triton after it ended, lost a stub, answered with errors only (failing)"
        " or not at all (wedged).",
        ("reason",),
        registry=registry,
    )
    for reason in RESTART_REASONS:  # an increase is only visible for a series that existed before
        counter.labels(reason)
    return lambda reason: counter.labels(reason).inc()


def restart_counter(registry: CollectorRegistry) -> Callable[[], None]:
    """Declare the number of workers that were replaced; the returned function counts one."""
    return Counter(
        "tritonflare_worker_restarts", "Worker processes that ended and were replaced.", registry=registry
    ).inc

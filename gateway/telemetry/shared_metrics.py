"""Metrics of several processes, added up in any of them."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.telemetry.metric_files import MetricFile, Room


@dataclass(frozen=True)
class SharedMetrics:
    """A folder in which each process keeps its values in files (prometheus_client's multiprocess mode)."""

    folder: Path
    """Made by the first process that writes a value; without room on the disk, serving goes on without it."""
    room: Room = field(default_factory=Room)

    @classmethod
    def somewhere(cls) -> SharedMetrics:
        """Choose a new folder for temporary files."""
        return cls(Path(tempfile.gettempdir()) / f"tritonflare-metrics-{secrets.token_hex(8)}")

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

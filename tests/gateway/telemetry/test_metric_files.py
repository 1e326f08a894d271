"""Metrics on a disk that is full, or becomes so."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest, values

from gateway.telemetry import metric_files
from gateway.telemetry.metric_files import MetricFile, Room
from gateway.telemetry.shared_metrics import SharedMetrics

ROOT = Path(__file__).parents[3]
BLOCKS = "posix_fallocate"
Opened = Callable[[Path], MetricFile]


@pytest.fixture(autouse=True)
def own_values(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What keeps metrics in files is left to this test alone."""
    for name in ("ValueClass", "MmapedDict"):
        monkeypatch.setattr(values, name, getattr(values, name))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    yield
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the disk full."""

    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, BLOCKS, refuse)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Open a file of values; all are closed at the end."""
    with ExitStack() as stack:

        def opened(path: Path) -> MetricFile:
            file = MetricFile(str(path), Room())
            stack.callback(file.close)
            return file

        yield opened


def counted(metrics: SharedMetrics) -> str:
    registry = metrics.registry()
    return "" if registry is None else generate_latest(registry).decode()


def test_a_file_has_its_blocks_before_anything_is_written(tmp_path: Path, opened: Opened) -> None:
    opened(tmp_path / "counter_0.db").write_value("key", 1.0, 0.0)
    status = (tmp_path / "counter_0.db").stat()
    assert status.st_blocks * 512 >= status.st_size == 1 << 16
    assert [path.name for path in tmp_path.iterdir()] == ["counter_0.db"]


def test_a_file_that_grows_has_its_blocks_too(tmp_path: Path, opened: Opened) -> None:
    file = opened(tmp_path / "counter_0.db")
    for number in range(200):
        file.write_value(f"{number}" * 200, float(number), 0.0)
    assert file.read_value("7" * 200) == (7.0, 0.0)
    status = (tmp_path / "counter_0.db").stat()
    assert status.st_blocks * 512 >= status.st_size > 1 << 16


def test_holes_that_another_process_left_are_filled(tmp_path: Path, opened: Opened) -> None:
    file = tmp_path / "counter_0.db"
    with file.open("wb") as holes:
        holes.truncate(1 << 16)
    opened(file)
    assert file.stat().st_blocks * 512 >= 1 << 16


def test_values_without_room_are_counted_on_and_shown_when_there_is_some(
    tmp_path: Path,
    full: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "tritonflare.metrics")
    metrics = SharedMetrics(tmp_path / "metrics")
    real = getattr(os, BLOCKS)
    full()
    metrics.keep_as("0")
    registry = CollectorRegistry()
    counter = Counter("events", "Events.", registry=registry)
    for _ in range(3):
        counter.inc()
    assert metrics.registry() is None
    assert "events_total 3.0" in generate_latest(registry).decode()  # what this process counted
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == []

    monkeypatch.setattr(os, BLOCKS, real)
    counter.inc()
    assert metrics.registry() is None  # it does not try each time
    monkeypatch.setattr(metric_files, "_AGAIN_S", 0.0)
    metrics.room._again = 0.0
    counter.inc()
    assert "events_total 5.0" in counted(metrics)
    assert [record.getMessage() for record in caplog.records] == [
        "metrics cannot be written to TMPDIR (No space left on device); trying again",
        "metrics are written to TMPDIR again",
    ]


def test_a_file_that_cannot_grow_keeps_what_it_has(
    tmp_path: Path, full: Callable[[], None], opened: Opened
) -> None:
    file = opened(tmp_path / "counter_0.db")
    file.write_value("first", 1.0, 0.0)
    full()
    for number in range(200):
        file.write_value(f"{number}" * 200, float(number), 0.0)
    file.write_value("first", 2.0, 0.0)
    assert file.read_value("first") == (2.0, 0.0)
    assert file.read_value("199" * 200) == (199.0, 0.0)
    assert (tmp_path / "counter_0.db").stat().st_size == 1 << 16


def test_a_replacement_goes_on_counting_where_the_one_before_ended(tmp_path: Path, opened: Opened) -> None:
    opened(tmp_path / "counter_0.db").write_value("key", 5.0, 0.0)
    assert opened(tmp_path / "counter_0.db").read_value("key") == (5.0, 0.0)


def test_a_folder_that_cannot_be_made_or_is_gone_is_no_failure(tmp_path: Path) -> None:
    metrics = SharedMetrics(tmp_path / "missing" / "metrics")
    metrics.keep_as("0")
    Counter("events", "Events.", registry=CollectorRegistry()).inc()
    assert metrics.registry() is None
    metrics.forget_gauges("0")
    metrics.remove()


_SUPERVISOR = """
import sys
from gateway.telemetry.shared_metrics import SharedMetrics
print(SharedMetrics.somewhere().folder, flush=True)
sys.stdin.read()
"""


def test_the_folder_of_a_killed_server_is_removed_by_the_next_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR], env=environment, stdin=-1, stdout=-1, text=True
    ) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        folder.mkdir(exist_ok=True)
        (folder / "counter_0.db").touch()
        first = SharedMetrics.somewhere()
        assert (folder / "counter_0.db").exists()
        other.kill()
    second = SharedMetrics.somewhere()
    assert not folder.exists()
    first.remove()
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_folder_does_not_travel_to_a_worker() -> None:
    shared = SharedMetrics.somewhere()
    try:
        received = pickle.loads(pickle.dumps(shared))
        assert (received.folder, received.lock) == (shared.folder, None)
    finally:
        shared.remove()

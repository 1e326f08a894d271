"""CPU time and memory of programs with their children."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from loadtest.bench.processes import ProcessTree
from loadtest.bench.soak import Memory

# A parent that does nothing, and a child that works half a second and then holds 50 MB.
_CHILD = "import time, sys; e = time.process_time() + 0.5\nwhile time.process_time() < e: pass\n"
_CHILD += "held = bytearray(b'x') * 50_000_000\nprint('done', flush=True); sys.stdin.read()"
_PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], 'the child) (S 1'])"


@contextmanager
def _family() -> Iterator[int]:
    command = [sys.executable, "-c", _PARENT, _CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def test_a_tree_adds_up_its_children_and_can_leave_some_out() -> None:
    with _family() as pid:
        whole, parent = ProcessTree(pid), ProcessTree(pid, without="the child")
        assert whole.cpu_s() - parent.cpu_s() >= 0.5
        assert whole.rss_bytes() - parent.rss_bytes() > 50_000_000
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert whole.rss_bytes() == pytest.approx(sum(one.memory_info().rss for one in family), rel=0.02)
    assert whole.cpu_s() == whole.rss_bytes() == 0


def test_this_process_is_a_tree_too() -> None:
    assert ProcessTree(os.getpid()).cpu_s() > 0


def test_growth_counts_from_the_first_minute_on() -> None:
    memory = Memory([0, 30, 60, 65, 600], {"gateway": [50, 90, 100, 101, 104]})
    assert memory.growth_percent("gateway") == pytest.approx(4.0)


def test_growth_of_a_short_run_counts_from_its_beginning() -> None:
    assert Memory([0, 5], {"gateway": [50, 60]}).growth_percent("gateway") == pytest.approx(20.0)

"""Run ``wrangler dev``, of either generation, and end it with everything below it."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

READY_S = 90
READY = re.compile(r"Ready on (http://\S+)")


@contextmanager
def wrangler_dev(command: Sequence[str], folder: Path, env: dict[str, str]) -> Iterator[str]:
    """``COMMAND dev`` in ``folder`` until the end of the block; yields its address.

    ``command`` is wrangler with the options of its own; ports are chosen here.
    """
    lines: list[str] = []
    found: list[str] = []
    settled = threading.Event()
    process = subprocess.Popen(
        [*command, "--port", "0", "--inspector-port", "0"],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if match := READY.search(line):
                found.append(match[1])
                settled.set()
        settled.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        settled.wait(READY_S)
        assert found, "wrangler did not become ready:\n" + "".join(lines)
        yield found[0]
    finally:
        _stop(process)
        reader.join(10)
        assert process.stdout is not None
        process.stdout.close()


def _stop(process: subprocess.Popen[str]) -> None:
    """End wrangler and everything below it, by process id."""
    everything = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    _, alive = psutil.wait_procs(everything, timeout=10)
    for child in alive:
        child.kill()
    process.wait(10)

"""A program in a process group of its own, all of which ends with the block."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_STOPS_WITHIN_S = 10.0
_DIES_WITHIN_S = 5.0
_POLL_INTERVAL_S = 0.02


@contextmanager
def process_group(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` in ``folder`` until the end of the block.

    SIGTERM goes to the first process, which may end the others in its own way. Whatever of the group is left
    when it has ended, or after 10 s, is killed. A Ctrl-C on the terminal does not reach the group, but ends
    the block.

    Args:
        command: the program and its arguments.
        folder: its working directory.
        environment: its environment, all of it.
        log: the file for its output.

    Raises:
        OSError: it cannot be started, or the log cannot be written.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        try:
            process.terminate()
            process.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            pass
        finally:  # a second Ctrl-C leaves nothing behind either
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group, and wait for it."""
    end = time.monotonic() + _DIES_WITHIN_S
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        process.poll()  # a process that nobody has waited for keeps its group
        time.sleep(_POLL_INTERVAL_S)
    process.wait()

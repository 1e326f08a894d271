"""Start the real programs as people do, find out where they listen, and end them without a trace."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ACCOUNT = "0123456789abcdef0123456789abcdef"
READY_WITHIN_S = 90
ROOT = Path(__file__).parents[2]
TOKEN = "test-token-0123456789abcdef"
_READY = re.compile(r"(?:Ready: |serving on )(https?://\S+)/client/v4")


@dataclass
class Program:
    """A running subcommand of tritonflare with everything that it has said."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def children(self) -> list[psutil.Process]:
        """All processes below it, alive now."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal and wait; fail if a child, a region or the port is left behind."""
        children = self.children() if self.process.poll() is None else []
        self.process.send_signal(number)
        status = self.process.wait(timeout)
        assert_nothing_left(self.process.pid, children, self.url)
        return status


def assert_nothing_left(
    pid: int, children: list[psutil.Process], url: str, patience: float = 10, *, tag: str | None = None
) -> None:
    """No child process, shared-memory region or listening port survives; orphans get a moment.

    ``tag`` is that of one server among several of the process ``pid``.
    """
    _, alive = psutil.wait_procs(children, timeout=patience)
    assert not alive, alive
    for folder in ("/dev/shm", tempfile.gettempdir()):
        assert not list(Path(folder).glob(f"{tag or f'tritonflare_{pid}_'}*"))
    if url:
        host, port = url.partition("://")[2].split(":")
        with socket.socket() as probe:
            connected = probe.connect_ex((host, int(port))) == 0
            # To a port of this range that is free, a socket may get the port itself and so meet itself.
            assert not connected or probe.getsockname() == probe.getpeername(), f"{url} still listens"


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Program]:
    """``tritonflare ARGUMENTS`` until the end of the block; waits until it says where it listens."""
    program = Program(start(*arguments, cwd=None, **environment))
    ready = threading.Event()

    def read() -> None:
        assert program.process.stdout is not None
        for line in program.process.stdout:
            program.lines.append(line)
            if match := _READY.search(line):
                program.url = match[1]
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        ready.wait(READY_WITHIN_S)
        assert program.url, f"tritonflare {arguments} did not become ready:\n{program.output}"
        yield program
    finally:
        if program.process.poll() is None:
            program.stop()
        reader.join(10)
        if program.process.stdout is not None:
            program.process.stdout.close()


def start(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """The program with output and errors on one pipe and no settings but those given."""
    if arguments[0] == "serve" and (cwd or Path.cwd()) == ROOT:
        assert "--repository" in arguments, "this would test what you serve, not what was exported for tests"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tritonflare", *arguments],
        env=inherited | {"PYTHONUNBUFFERED": "1", "TRITONFLARE_HOME": str(cwd or Path.cwd())} | environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(
    *arguments: str, cwd: Path | None = None, timeout: float = 60, **environment: str
) -> tuple[int, str]:
    """Run the program to its end; its exit status and output."""
    with start(*arguments, cwd=cwd, **environment) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, output


def listens(port: int) -> bool:
    """Whether a server accepts connections on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until true or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()

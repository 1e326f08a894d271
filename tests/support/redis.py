"""A real redis-server for the tests that count rates in one."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import required
from tests.support.servers import listens, wait_until


def require_redis() -> str:
    """Return the program; skip where there is none, and fail where CI is set."""
    return required("redis-server", "needs redis-server (apt-get install redis-server)")


class Redis:
    """One server on a port that stays the same over restarts; it keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._program = require_redis()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *options], stdout=log, cwd=self._folder)
        assert wait_until(lambda: listens(self.port), 10), (self._folder / "redis.log").read_text()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def running_redis(folder: Path) -> Iterator[Redis]:
    """A redis-server until the end of the block."""
    redis = Redis(folder)
    redis.start()
    try:
        yield redis
    finally:
        redis.stop()

"""Runs locust as ``make loadtest`` does, and a stand-in server that can lie and stall."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCUST = ROOT / ".venv-loadtest" / "bin" / "locust"
TOKEN = "test-token-0123456789abcdef"


def require_locust() -> None:
    """Skip where locust's environment is missing; where it must be there, fail."""
    if LOCUST.exists():
        return
    reason = "locust is not installed: make loadtest-env"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def start_locust(*options: str, **environment: str) -> subprocess.Popen[str]:
    """Locust from the repository's root, with nothing of this machine's settings."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LOCUST_", "LOADTEST_")) and key not in ("ACCOUNT", "MODEL", "PYTHONPATH")
    }
    return subprocess.Popen(
        [str(LOCUST), *options],
        cwd=ROOT,
        env=inherited | {"TOKEN": TOKEN} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@dataclass
class Finished:
    """A run that is over."""

    status: int
    output: str
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return found


def load(host: str, folder: Path, *options: str, timeout: float = 60, **environment: str) -> Finished:
    """One headless run with all its reports in ``folder``."""
    reports = ("--html", f"{folder}/report.html", "--csv", f"{folder}/locust", "--output", str(folder))
    with start_locust(
        "--config", "loadtest/locust.conf", "--host", host, *reports, *options, **environment
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Finished(process.returncode, output, folder)


class StandIn(ThreadingHTTPServer):
    """Answers every text alike, from the moment ``lie_after`` answers were given a little differently."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = 0
        self.lie_after = float("inf")
        self.stall_after = float("inf")
        self.stall_s = 1.0
        self.stalled_until = 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_scores(self) -> tuple[float, float]:
        """What to answer, after a stall if there is one."""
        with self.lock:
            self.answers += 1
            if self.answers == self.stall_after:
                self.stalled_until = time.monotonic() + self.stall_s
            negative = 0.25 if self.answers <= self.lie_after else 0.26
            wait_s = self.stalled_until - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        return negative, 1 - negative


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one write
    server: StandIn

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        negative, positive = self.server.next_scores()
        result = [{"label": "NEGATIVE", "score": negative}, {"label": "POSITIVE", "score": positive}]
        body = json.dumps({"result": result, "success": True, "errors": [], "messages": []}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """The stand-in on a free loopback port."""
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)

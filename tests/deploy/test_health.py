"""The serving image's health check before a slow Triton, and before one that it has to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from health import check

MODELS = 5
ANSWER_S = 0.1


class _Slow(BaseHTTPRequestHandler):
    """Answers each request within the limit, but all of them together take longer."""

    def do_GET(self) -> None:
        self._answer(b'{"platform": "ensemble", "input": [{"name": "TEXT"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        index = ", ".join(f'{{"name": "m{number}"}}' for number in range(MODELS))
        self._answer(f"[{index}]".encode() if self.path.endswith("index") else b'{"outputs": [1]}')

    def _answer(self, body: bytes) -> None:
        time.sleep(ANSWER_S)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Rerankers(_Slow):
    """Refuses whatever is no pair, as Triton does when an input is missing."""

    def do_GET(self) -> None:
        self._answer(b'{"platform": "ensemble", "input": [{"name": "QUERY"}, {"name": "TEXT"}]}')

    def do_POST(self) -> None:
        if self.path.endswith("index"):
            super().do_POST()
            return
        inputs = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
        assert all(tensor["shape"] == [1, len(tensor["data"])] for tensor in inputs)
        is_pair = [tensor["name"] for tensor in inputs] == ["QUERY", "TEXT"]
        self._answer(b'{"outputs": [1]}' if is_pair else b"{}")


@pytest.fixture
def triton() -> Iterator[str]:
    with _serving(_Slow) as url:
        yield url


@contextmanager
def _serving(handler: type[_Slow]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_every_ensemble_is_asked(triton: str) -> None:
    assert check(triton, 10) == MODELS


def test_a_reranker_is_asked_about_a_pair() -> None:
    with _serving(_Rerankers) as url:
        assert check(url, 10) == MODELS


def test_a_proxy_of_the_environment_is_not_asked(triton: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert check(triton, 10) == MODELS


def test_the_limit_is_for_all_answers_together(triton: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        check(triton, 3 * ANSWER_S)
    assert time.monotonic() - began < 6 * ANSWER_S


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        yield running


class Server:
    """A process of its own that listens and answers as it is told to, and may not want to end."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self._answer = folder / "answer"
        self._log = folder / "log"

    def __enter__(self) -> Server:
        self.answers("200")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def start(self, *options: str) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, str(self._answer), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.process.stdout.close()

    def answers(self, status: str) -> None:
        self._answer.write_text(status)

    def look(self, *options: str) -> tuple[int, str]:
        """Run the program once; what it found and what it said."""
        program = Path(__file__).parents[2] / "docker/triton/health.py"
        command = [sys.executable, "-I", str(program), f"--url=http://127.0.0.1:{self.port}"]
        found = subprocess.run(
            [*command, "--timeout=5", f"--state={self.state}", "--end-after=3", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.stderr == ""
        return found.returncode, found.stdout

    def asked(self) -> list[str]:
        """Paths that were asked for since the last call."""
        found = [line.removeprefix("asked ") for line in self.log().splitlines() if line.startswith("asked")]
        self._log.write_text("")
        return found

    def log(self) -> str:
        return self._log.read_text()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None


_SERVER = """
import signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, file=sys.stderr, flush=True)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status = int(open(sys.argv[1]).read()) if self.path.endswith("infer") else 200
        self.send_response(status)
        self.end_headers()
        if self.path.endswith("index"):
            self.wfile.write(b'[{"name": "mood", "version": "1"}, {"name": "step", "version": "1"}]')
        elif self.path.endswith("config"):
            platform = b"ensemble" if "mood" in self.path else b""
            self.wfile.write(b'{"platform": "%s", "input": [{"name": "TEXT"}]}' % platform)
        elif status == 200:
            self.wfile.write(b'{"outputs": [1]}')
    do_POST = do_GET
    def log_message(self, *_):
        pass

if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_model_is_asked_for_its_configuration_once_in_the_life_of_a_server(server: Server) -> None:
    server.look()
    assert [path for path in server.asked() if "config" in path] == [
        "/v2/models/mood/config",
        "/v2/models/step/config",
    ]
    server.look()
    assert server.asked() == ["/v2/health/ready", "/v2/repository/index", "/v2/models/mood/infer"]


def test_enough_failures_in_a_row_end_the_server_and_its_log_has_the_reason(server: Server) -> None:
    server.look()
    server.answers("500")
    for _ in range(2):
        assert server.look()[0] == 1
        assert server.lives
    status, said = server.look()
    assert (status, said.partition("; ")[2]) == (1, "told to end after 3 failed looks\n")
    assert server.process.wait(5) == -signal.SIGTERM
    assert "told to end after 3 failed looks" in server.log()


def test_one_answer_between_failures_lets_the_server_live(server: Server) -> None:
    for _ in range(3):
        server.answers("200")
        assert server.look()[0] == 0
        server.answers("500")
        assert [server.look()[0] for _ in range(2)] == [1, 1]
    assert server.lives


def test_a_server_that_does_not_end_is_killed_but_not_at_once(server: Server) -> None:
    server.__exit__()
    server.start("stubborn")
    server.look()
    server.answers("500")
    for _ in range(5):
        server.look("--kill-after=60")
        assert server.lives
    assert "; killed " in server.look("--kill-after=0")[1]
    assert server.process.wait(5) == -signal.SIGKILL


def test_a_server_that_was_never_healthy_has_time_to_start(server: Server) -> None:
    server.answers("500")
    for _ in range(5):
        assert server.look("--start-period=60")[0] == 1
    assert server.lives
    for _ in range(3):
        server.look("--start-period=0")
    assert server.process.wait(5) == -signal.SIGTERM


def test_failures_of_one_process_do_not_count_for_the_next(server: Server) -> None:
    server.look()
    server.answers("500")
    server.look()
    server.look()
    server.__exit__()
    server.start()
    for _ in range(2):
        server.look("--start-period=0")
        assert server.lives


def test_nothing_is_ended_unless_asked_for_nor_where_nothing_can_be_remembered(server: Server) -> None:
    server.look()
    server.answers("500")
    for _ in range(4):
        server.look("--end-after=0")
    server.state.unlink()
    for _ in range(4):
        assert "not remembered: " in server.look(f"--state={server.state.parent}", "--start-period=0")[1]
    assert server.lives


def test_without_a_listener_no_process_is_ended(server: Server) -> None:
    server.process.kill()
    server.process.wait()
    for _ in range(4):
        assert server.look("--start-period=0")[0] == 1
    assert not server.state.exists()

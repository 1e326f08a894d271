"""The serving image's health check before a slow Triton."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from health import check

MODELS = 5
ANSWER_S = 0.1


class _Slow(BaseHTTPRequestHandler):
    """Answers each request within the limit, but all of them together take longer."""

    def do_GET(self) -> None:
        self._answer(b'{"platform": "ensemble"}')

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


@pytest.fixture
def triton() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_every_ensemble_is_asked(triton: str) -> None:
    assert check(triton, 10) == MODELS


def test_the_limit_is_for_all_answers_together(triton: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        check(triton, 3 * ANSWER_S)
    assert time.monotonic() - began < 6 * ANSWER_S

"""The environments of the peers, and a stand-in for one that needs no packages."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench.peers.servers import NAMES, missing
from loadtest.bench.peers.ways import MeasuredServer
from loadtest.bench.processes import ProcessTree
from loadtest.client import Target

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"

# Starts a child that SIGTERM does not end, writes both process ids to the file in the first argument, and
# answers with its environment.
_STAND_IN = """\
#!{python}
import json, os, signal, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
signal.signal(signal.SIGTERM, signal.SIG_DFL)
open(sys.argv[1], "w").write(f"{{os.getpid()}} {{child.pid}}")
if sys.argv[2] == "fail":
    sys.exit("no model here")
class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.dumps(dict(os.environ)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("127.0.0.1", int(sys.argv[2])), Answer).serve_forever()
"""


def require_peers() -> None:
    """Skip where an environment of a peer is missing; where it must be there, fail."""
    absent = missing(NAMES, ENVIRONMENTS)
    if not absent:
        return
    reason = f"peers are not installed ({', '.join(absent)}): make peers-env"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def stand_in_environment(folder: Path, name: str) -> None:
    """An environment whose ``bin/serve`` is a server: ``serve PIDS_FILE PORT``, or ``fail`` for the port."""
    program = folder / name / "bin" / "serve"
    program.parent.mkdir(parents=True)
    program.write_text(_STAND_IN.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)


@contextmanager
def answering(name: str, answer: Callable[[str], Any]) -> Iterator[MeasuredServer]:
    """A server in this process whose answer to each text is ``answer(text)`` as JSON."""
    with answering_bodies(name, lambda body: answer(body["text"])) as server:
        yield server


@contextmanager
def answering_bodies(name: str, answer: Callable[[Any], Any]) -> Iterator[MeasuredServer]:
    """The same, ``answer`` of the whole body; bytes are sent as they are, with the status 500."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            found = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(500 if isinstance(found, bytes) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # a client that gave up may have left connections open
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of a client that gave up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            target = Target(f"http://127.0.0.1:{server.server_port}", "none", "/")
            yield MeasuredServer(name, target, [ProcessTree(os.getpid())])
        finally:
            server.shutdown()
            thread.join()


def scores(**by_label: float) -> list[Mapping[str, Any]]:
    """An answer in the form of the peers."""
    return [{"label": label, "score": score} for label, score in by_label.items()]

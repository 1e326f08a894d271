"""Put ``examples/shim`` into a project and run today's Workers tools there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests.support.clients.node import LATEST, copy, environment, run_tool
from tests.support.servers import ROOT, TOKEN

SHIM = ROOT / "examples" / "shim"
WRANGLER = LATEST / "node_modules" / "wrangler" / "bin" / "wrangler.js"


def tools(home: Path, **values: str) -> dict[str, str]:
    """The environment for one of the tools: nobody has logged in."""
    return environment(home, WRANGLER_SEND_METRICS="false", CI="1", **values)


def dev_command(node: str, *configs: str) -> list[str]:
    """``wrangler dev`` with these configurations; the first one's Worker gets the requests."""
    return [node, str(WRANGLER), "dev", *(part for config in configs for part in ("-c", config))]


def put_project(folder: Path, url: str) -> Path:
    """Copy the tests' project with the shim in it; both are unmodified but for the file with the token."""
    copy(LATEST / "project", folder, LATEST)
    put_shim(folder / "shim", url)
    return folder


def put_shim(folder: Path, url: str, token: str = TOKEN) -> Path:
    """Copy the shim as it stands and say in ``.dev.vars`` where the gateway is."""
    copy(SHIM, folder)
    variables = f"CLOUDFLARE_API_BASE_URL={url}/client/v4\nCLOUDFLARE_API_TOKEN={token}\n"
    (folder / ".dev.vars").write_text(variables)
    return folder


def run_program(node: str, home: Path, program: str, **given: Any) -> list[Any]:
    """Run a program of `LATEST` with this on its standard input; the JSON in its last line."""
    printed = run_tool(node, LATEST, program, stdin=json.dumps(given), env=tools(home))
    reported: list[Any] = json.loads(printed.splitlines()[-1])
    return reported


class Recorder(BaseHTTPRequestHandler):
    """Keeps what a client sends, and answers what the test says."""

    requests: ClassVar[list[tuple[str, dict[str, str], object]]] = []
    """Of each request its path, its headers with names in lower case, and its body as JSON."""
    answer: ClassVar[tuple[int, str, str]] = (200, "application/json", "{}")
    """Status, content type and body."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.requests.append((self.path, headers, body))
        status, kind, text = self.answer
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def recording() -> Iterator[str]:
    """A server that answers as `Recorder` says; yields its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

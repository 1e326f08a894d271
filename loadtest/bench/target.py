"""Where a gateway answers, and the bytes of a request to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest.bench.figures import Sample


@dataclass(frozen=True)
class Target:
    """One model behind one gateway; ``path`` is that of its run route."""

    host: str
    port: int
    path: str
    token: str

    def request(self, text: str) -> bytes:
        """A whole HTTP/1.1 request for one text."""
        body = json.dumps({"text": text}).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


Load = Callable[[Target, Sequence[str], int, float], Sample]
"""A load generator: asks ``texts`` in turn over so many connections for so many seconds, each connection
again as soon as it has its answer. Raises LoadError."""


class LoadError(RuntimeError):
    """The server did not answer every request with 200, so there is nothing to measure."""

"""HTTP/1.1 as load sends it: requests as bytes, connections that are used again, whole answers."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class LoadError(RuntimeError):
    """The server did not answer every request with 200, so there is nothing to measure."""


class NoAnswerError(LoadError):
    """No answer came within the time of the measurement; none was wrong."""


@dataclass(frozen=True)
class Target:
    """One model behind one gateway: ``http://host:port``, an API token, and the path of its run route."""

    url: str
    token: str
    path: str

    def request(self, text: str) -> bytes:
        """The bytes of a request for one text."""
        return self.request_of({"text": text})

    def request_of(self, payload: object) -> bytes:
        """The bytes of a request with ``payload`` as JSON in its body."""
        body = json.dumps(payload).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class ClientConnection(asyncio.Protocol):
    """One connection, which carries one request at a time.

    ``reusable`` tells whether the last answer was whole and the server keeps the connection open.
    """

    def __init__(self) -> None:
        self.reusable = False
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def open(cls, target: Target) -> ClientConnection:
        """Connect.

        Raises:
            OSError: the connection was refused.
        """
        host, _, port = urlsplit(target.url).netloc.rpartition(":")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host.strip("[]"), int(port))
        return connection

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send ``request``; return status and body of its answer.

        Raises:
            ConnectionError: the connection ended before the whole answer had come.
        """
        if self._transport is None:
            raise ConnectionResetError("the server closed the connection")
        self.reusable = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection; an answer that has not come is given up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # A TCP connection is always writable; uvloop's own class does not declare it.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._received += data
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete:
            return
        length = _LENGTH.search(head)
        if length is None:
            self._fail("the answer has no Content-Length")
        elif len(body) >= int(length[1]):
            self._received = b""
            self.reusable = _CLOSE.search(head) is None
            if self._answer is not None and not self._answer.done():
                self._answer.set_result((int(head.split(b" ", 2)[1]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.reusable = False
        self._transport = None
        self._fail("the server closed the connection")

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(reason))

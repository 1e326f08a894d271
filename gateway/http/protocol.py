"""uvicorn's HTTP/1.1 protocol with two corrections."""

from __future__ import annotations

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.domain.errors import MalformedRequest
from gateway.http.envelope import failure

_UPGRADE = re.compile(rb"(?<=\r\n)upgrade:", re.IGNORECASE)
# As long as what it replaces, so that nothing moves.
_IGNORED = b"ignored:"


class HttpProtocol(HttpToolsProtocol):
    """Ignores upgrades, and answers what is no HTTP with the API's envelope."""

    def data_received(self, data: bytes) -> None:
        """Hide an ``Upgrade`` header from the parser, which would stop before the body.

        Java's client offers h2c on every clear-text request, and a server may ignore that (RFC 9110,
        section 7.8). A JSON body cannot be hit: a raw line break inside a string is not JSON.
        """
        super().data_received(_UPGRADE.sub(_IGNORED, data))

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP request, and close."""
        body = failure(MalformedRequest(), None).body
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        self.transport.close()

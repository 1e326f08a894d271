"""A client that has sent FIN: it may have half-closed its connection, or closed it."""

from __future__ import annotations

import asyncio
import socket

from gateway.server.connection.timeouts import HALF_CLOSE_PROBE_S, ConnectionTimer
from gateway.server.parser import RequestParser

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HalfCloseProbe:
    """Detects that a client which has sent FIN no longer reads (RFC 9293, section 3.6).

    TCP does not tell the two apart. So the probe sends one 100 (Continue), which a client has to accept
    before any response (RFC 9110, section 15.2). A closed socket replies with RST, which sets SO_ERROR:
    behind a FIN, reading would not report it.
    """

    def __init__(self, transport: asyncio.Transport, timer: ConnectionTimer) -> None:
        self._transport = transport
        self._timer = timer
        self.is_half_closed = False
        self._has_sent = False

    def start(self, parser: RequestParser) -> None:
        """Note the FIN, and abort the connection as soon as the client turns out to be gone.

        Args:
            parser: knows the HTTP version; HTTP/1.0 has no interim responses, so nothing is sent there.
        """
        if not self.is_half_closed:
            self.is_half_closed = True
            self._timer.start(HALF_CLOSE_PROBE_S, self._probe, parser)

    def _probe(self, parser: RequestParser) -> None:
        if self._transport.is_closing():
            return
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        if not self._has_sent and parser.version != "1.0":
            self._has_sent = True
            self._transport.write(CONTINUE)
        self._timer.start(HALF_CLOSE_PROBE_S, self._probe, parser)

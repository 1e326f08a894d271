"""Listening, and stopping without losing a request."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.http_connection import HttpConnection
from gateway.server.message import RequestHandler
from gateway.server.sockets import accept_all
from gateway.server.timeouts import Timeouts

BACKLOG = 2048
_LOOK_AROUND_S = 0.02
"""Time to read what the kernel holds already, and to begin with connections that were accepted last."""
_LAST_WORDS_S = 1.0
"""What requests get to say that they were cancelled."""
_FIRST_REQUEST_S = 1.0
"""What a connection whose handshake ended during the drain gets to send a request."""
_TLS_FAREWELL_S = 1.0
"""What a peer gets to say goodbye in TLS, too."""


class HttpServer:
    """Serves an app on sockets that are bound already, in TLS if there is a context for it."""

    def __init__(
        self,
        app: RequestHandler,
        limiter: ConnectionLimiter,
        timeouts: Timeouts,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._timeouts = timeouts
        self._tls = tls
        self._listeners: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._draining = False
        self._accepted: WeakSet[HttpConnection] = WeakSet()
        """Those among them that are in a TLS handshake; they enter the limiter after it."""

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        self._sockets += sockets
        for sock in sockets:
            self._listeners.append(
                await loop.create_server(self._connect, sock=sock, backlog=BACKLOG, **self._tls_options())
            )

    def _tls_options(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {
            "ssl": self._tls,
            "ssl_handshake_timeout": self._timeouts.transfer_s,
            "ssl_shutdown_timeout": _TLS_FAREWELL_S,
        }

    def _connect(self) -> HttpConnection:
        connection = HttpConnection(self._app, self._limiter, self._timeouts)
        if self._draining:
            connection.close_after_response()
        if self._tls is not None:
            self._accepted.add(connection)
        return connection

    def _connections(self) -> list[HttpConnection]:
        return [member for member in self._limiter if isinstance(member, HttpConnection)]

    def start_draining(self) -> None:
        """Go on accepting, but have each connection end with its next answer, so that no proxy reuses it."""
        self._draining = True
        for connection in (*self._connections(), *self._accepted):
            connection.close_after_response()

    async def stop(self, drain_s: float, at_once: asyncio.Event, *, idle_s: float = 0) -> None:
        """Accept no more, answer what is there for up to ``drain_s``, then cancel the rest.

        Args:
            drain_s: seconds.
            at_once: set it to wait no longer.
            idle_s: how long idle connections stay open, for requests that a proxy is about to send on them.
        """
        self.start_draining()
        # It has to wait already when they close, or it would not wait.
        closed = [asyncio.ensure_future(listener.wait_closed()) for listener in self._listeners]
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            # asyncio loses what it has accepted when a listener closes; uvloop does not, and ignores this.
            asyncio.get_running_loop().remove_reader(sock.fileno())
        await asyncio.sleep(0)
        # No await in between: what the kernel accepts now it would reset when the listener closes.
        last = [accepted for sock in sockets for accepted in accept_all(sock)]
        for listener in self._listeners:
            listener.close()
        all_gone = asyncio.gather(*closed, *map(self._take, last), return_exceptions=True)
        await asyncio.sleep(_LOOK_AROUND_S)
        await self._wait_for_connections(drain_s, idle_s, at_once, all_gone)
        all_gone.cancel()
        await asyncio.gather(all_gone, return_exceptions=True)
        tasks = [connection.task for connection in self._connections() if connection.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS_S)
        for connection in self._connections():
            connection.abort()

    async def _take(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(self._connect, accepted, **self._tls_options())

    async def _wait_for_connections(
        self, drain_s: float, idle_s: float, at_once: asyncio.Event, all_gone: asyncio.Future[Any]
    ) -> None:
        now = asyncio.get_running_loop().time
        ends = now() + drain_s
        finish_at = dict.fromkeys(self._connections(), now() + idle_s)
        while not at_once.is_set():
            for connection in self._connections():
                finish = now() >= finish_at.setdefault(connection, now() + _FIRST_REQUEST_S)
                if finish and connection.finish():
                    finish_at[connection] = math.inf
            # In TLS there are others yet, in their handshake; it has transfer_s, and then they are closed.
            if now() >= ends or not (len(self._limiter) or (self._tls is not None and not all_gone.done())):
                return
            await asyncio.sleep(0.01)

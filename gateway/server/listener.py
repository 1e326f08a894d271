"""The server: listens, and drains without losing a request."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from gateway.server.connection.http_connection import HttpConnection
from gateway.server.connection.timeouts import Timeouts
from gateway.server.connection_limiter import ConnectionLimiter
from gateway.server.message import RequestHandler
from gateway.server.sockets import accept_all

BACKLOG = 2048
_SETTLE_S = 0.02
"""Time to read what is in the kernel already, and to start the connections that were accepted last."""
_CANCEL_S = 1.0
"""Time for handlers to end after they are cancelled."""
_FIRST_REQUEST_S = 1.0
"""Time for the first request on a connection whose TLS handshake ended during the drain."""
_TLS_SHUTDOWN_S = 1.0
"""Time for the close_notify of the client."""
_DRAIN_POLL_S = 0.01


class HttpServer:
    """Serves an application on bound sockets, with TLS if a context is given."""

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
        """With TLS: also those in a handshake, which the limiter does not count yet."""

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on ``sockets`` and accept connections."""
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
            "ssl_shutdown_timeout": _TLS_SHUTDOWN_S,
        }

    def _connect(self) -> HttpConnection:
        connection = HttpConnection(self._app, self._limiter, self._timeouts)
        if self._draining:
            connection.close_after_response()
        if self._tls is not None:
            self._accepted.add(connection)
        return connection

    def _connections(self) -> list[HttpConnection]:
        return [connection for connection in self._limiter if isinstance(connection, HttpConnection)]

    def start_draining(self) -> None:
        """Continue to accept, but close each connection after its next response: no proxy may reuse it."""
        self._draining = True
        for connection in (*self._connections(), *self._accepted):
            connection.close_after_response()

    async def stop(self, drain_s: float, at_once: asyncio.Event, *, idle_s: float = 0) -> None:
        """Stop accepting, respond to what has arrived for up to ``drain_s``, then cancel the rest.

        Args:
            drain_s: seconds.
            at_once: set it to end the drain early.
            idle_s: how long idle connections stay open, for requests that a proxy is about to send.
        """
        self.start_draining()
        # Started before close(): afterwards wait_closed() would return at once.
        closed = [asyncio.ensure_future(listener.wait_closed()) for listener in self._listeners]
        last = await self._accept_last()
        for listener in self._listeners:
            listener.close()
        all_closed = asyncio.gather(*closed, *map(self._adopt, last), return_exceptions=True)
        await asyncio.sleep(_SETTLE_S)
        await self._wait_for_connections(drain_s, idle_s, at_once, all_closed)
        all_closed.cancel()
        await asyncio.gather(all_closed, return_exceptions=True)
        await self._cancel_handlers()
        for connection in self._connections():
            connection.abort()

    async def _accept_last(self) -> list[socket.socket]:
        """Accept what is in the backlogs; the caller closes the listeners without awaiting in between.

        Otherwise the kernel could complete further connections, which it would reset on close.
        """
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            # asyncio drops what it has accepted when a listener closes; uvloop does not, and ignores this.
            asyncio.get_running_loop().remove_reader(sock.fileno())
        await asyncio.sleep(0)
        return [accepted for sock in sockets for accepted in accept_all(sock)]

    async def _adopt(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(self._connect, accepted, **self._tls_options())

    async def _cancel_handlers(self) -> None:
        tasks = [connection.task for connection in self._connections() if connection.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)

    async def _wait_for_connections(
        self, drain_s: float, idle_s: float, at_once: asyncio.Event, all_closed: asyncio.Future[Any]
    ) -> None:
        now = asyncio.get_running_loop().time
        ends = now() + drain_s
        finish_at = dict.fromkeys(self._connections(), now() + idle_s)
        while not at_once.is_set():
            for connection in self._connections():
                finish = now() >= finish_at.setdefault(connection, now() + _FIRST_REQUEST_S)
                if finish and connection.finish():
                    finish_at[connection] = math.inf
            # With TLS there may be more, in a handshake, which transfer_s limits.
            if now() >= ends or not (len(self._limiter) or (self._tls is not None and not all_closed.done())):
                return
            await asyncio.sleep(_DRAIN_POLL_S)

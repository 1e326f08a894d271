"""The ASGI application: lifespan, routing, the one renderer of errors, access log, metrics."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import uuid4

from starlette.types import Message, Receive, Scope, Send

from gateway.domain.errors import AiError, BackendUnavailable, TritonflareError, UnknownError
from gateway.http import binding_form, envelope
from gateway.http.asgi import Header, Request, Response, headers_of, send_response
from gateway.http.auth import authenticate
from gateway.http.local import is_local_binding
from gateway.http.metrics import Metrics
from gateway.http.miniflare import unwrap_miniflare
from gateway.http.router import Route, Router
from gateway.logs import ACCESS_LOGGER
from gateway.tokens import TokenTable

_log = logging.getLogger("tritonflare.http")
_access = logging.getLogger(ACCESS_LOGGER)

Lifespan = Callable[[], AbstractAsyncContextManager[None]]

_NO_SCOPE: Scope = {"type": "http", "method": "-"}
"""What is known of bytes that are no request."""


class App:
    """The gateway as an ASGI application."""

    def __init__(
        self,
        routes: Sequence[Route],
        tokens: TokenTable,
        metrics: Metrics,
        lifespan: Lifespan,
        *,
        binding_without_token: bool = False,
    ) -> None:
        self.routes = tuple(routes)
        self._router = Router(routes)
        self._tokens = tokens
        self._binding_without_token = binding_without_token
        self._metrics = metrics
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope: ``http`` or ``lifespan``."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise NotImplementedError(f"ASGI scope {scope['type']}")

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive, _new_ray_id())
        response = await self._answer(request)
        seconds = time.perf_counter() - started
        self._record(request, response, seconds)
        await send_response(request, response, send)

    def refuse(self, error: TritonflareError) -> tuple[Response, list[Header]]:
        """Render, log and count the refusal of what never became a request; return it with its headers."""
        request = Request(_NO_SCOPE, _receive_nothing, _new_ray_id())
        response = _failure(error, request)
        self._record(request, response, 0.0)
        return response, headers_of(request, response)

    async def _answer(self, request: Request) -> Response:
        """Run the handler; the one place where an exception becomes an answer."""
        try:
            unwrap_miniflare(request)
            route = self._router.match(request)
            if route.api and not route.checks_token and not self._is_local_binding(route, request):
                authenticate(request, self._tokens)
            return await route.handler(request)
        except TritonflareError as exc:
            return _failure(exc, request)
        except asyncio.CancelledError:
            # The server cancels what outlives the drain deadline; the task ends here either way, and
            # the caller deserves an envelope rather than the server's plain text.
            return _failure(BackendUnavailable(), request)
        except Exception:
            # The outermost renderer: a defect of ours must not reach the caller as a traceback.
            _log.exception("request %s failed", request.ray_id)
            return _failure(UnknownError(), request)

    def _is_local_binding(self, route: Route, request: Request) -> bool:
        return self._binding_without_token and route.tokenless and is_local_binding(request)

    def _record(self, request: Request, response: Response, seconds: float) -> None:
        if request.api:
            self._metrics.request_done(request.model_label, response.code, response.status, seconds)
        _access.log(
            logging.INFO if request.api else logging.DEBUG,
            "%s %s status=%d code=%d ms=%.1f ray=%s id=%s",
            request.method,
            request.route,
            response.status,
            response.code,
            1000 * seconds,
            request.ray_id,
            request.ai_request_id or "-",
        )


def _new_ray_id() -> str:
    return f"{secrets.token_hex(8)}-TFL"


async def _receive_nothing() -> Message:
    return {"type": "http.disconnect"}


def _failure(error: TritonflareError, request: Request) -> Response:
    if isinstance(error, AiError) and request.ai_request_id is None:
        request.ai_request_id = str(uuid4())  # it was refused before it had one; log and answer share it
    render = binding_form.failure if request.binding_form else envelope.failure
    return render(error, request.ai_request_id)

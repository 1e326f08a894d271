"""The application: routing, the one renderer of errors, access log, metrics."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from uuid import uuid4

from gateway.access.authentication import authenticate
from gateway.access.tokens import TokenTable
from gateway.api import envelope
from gateway.api.binding import rendering as binding_form
from gateway.api.binding.local_development import is_local_binding
from gateway.api.binding.miniflare import unwrap_miniflare
from gateway.api.router import Route, Router
from gateway.domain.backend import Timing
from gateway.domain.errors import (
    AiError,
    BackendUnavailable,
    TritonflareError,
    UnknownError,
    without_frames,
)
from gateway.server.message import Header, Request, Response
from gateway.telemetry.access_log import AccessLog, AccessRecord
from gateway.telemetry.metrics import Metrics

_log = logging.getLogger("tritonflare.http")


class App:
    """The gateway as a function from request to response."""

    def __init__(
        self,
        routes: Sequence[Route],
        tokens: TokenTable,
        metrics: Metrics,
        access_log: AccessLog,
        *,
        binding_without_token: bool = False,
        trace: Callable[[Request], None] | None = None,
    ) -> None:
        """Take what answers, who may ask, and where to count and to log.

        Args:
            routes: in the order in which they are tried.
            tokens: the accounts' tokens.
            metrics: counts the requests to the API.
            access_log: gets a line about each.
            binding_without_token: see the setting of the same name.
            trace: told of each request to the API once its route is known; `Request.on_answer` is its own.
        """
        self.routes = tuple(routes)
        self._router = Router(routes)
        self._tokens = tokens
        self._binding_without_token = binding_without_token
        self._metrics = metrics
        self._access_log = access_log
        self._trace = trace

    async def __call__(self, request: Request) -> tuple[Response, list[Header]]:
        """Answer a request, log and count it; return the answer with its headers."""
        started = time.perf_counter()
        request.ray_id = _new_ray_id()
        response = await self._answer(request)
        request.drop_body()
        seconds = time.perf_counter() - started
        self._record(request, response, seconds)
        headers = _headers_of(request, response)
        if request.ai_request_id is not None and response.code == 0:
            headers.append((b"server-timing", _server_timing(request.timing, seconds)))
        return response, headers

    def refuse(self, error: TritonflareError) -> tuple[Response, list[Header]]:
        """Render, log and count the refusal of what never became a request; return it with its headers."""
        request = Request("-", "")
        request.ray_id = _new_ray_id()
        response = _failure(error, request)
        self._record(request, response, 0.0)
        return response, _headers_of(request, response)

    async def _answer(self, request: Request) -> Response:
        """Run the handler; the one place where an exception becomes an answer."""
        try:
            unwrap_miniflare(request)
            route = self._router.match(request)
            if self._trace is not None and route.api:
                self._trace(request)
            if route.api and not route.checks_token and not self._is_local_binding(route, request):
                authenticate(request, self._tokens)
            return await route.handler(request)
        except TritonflareError as exc:
            return _failure(without_frames(exc), request)
        except asyncio.CancelledError as exc:
            # The server cancels what outlives the drain deadline; the task ends here either way, and
            # the caller deserves an envelope rather than the server's plain text.
            without_frames(exc)
            return _failure(BackendUnavailable(), request)
        except Exception as exc:
            # The outermost renderer: a defect of ours must not reach the caller as a traceback.
            _log.exception("request %s failed", request.ray_id, extra={"ray": request.ray_id})
            without_frames(exc)
            return _failure(UnknownError(), request)

    def _is_local_binding(self, route: Route, request: Request) -> bool:
        return self._binding_without_token and route.tokenless and is_local_binding(request)

    def _record(self, request: Request, response: Response, seconds: float) -> None:
        if request.api:
            self._metrics.request_done(request.model_label, response.code, response.status, seconds)
        if request.on_answer is not None:
            request.on_answer(response)
        self._access_log.add(
            AccessRecord(
                request.method,
                request.route,
                response.status,
                response.code,
                seconds,
                request.ray_id,
                request.ai_request_id,
                request.model_label,
                request.timing,
                request.trace_id,
            ),
            api=request.api,
        )


def _new_ray_id() -> str:
    return f"{secrets.token_hex(8)}-TFL"


def _headers_of(request: Request, response: Response) -> list[Header]:
    """The headers that every answer carries, the ray id among them, and then its own."""
    return [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        (b"cf-ray", request.ray_id.encode()),
        *response.headers,
    ]


def _server_timing(timing: Timing | None, seconds: float) -> bytes:
    """Split the time of a successful run, in milliseconds (W3C Server Timing); the total alone if unsent."""
    if timing is None:
        return b"total;dur=%.1f" % (1000 * seconds)
    return b"queue;dur=%.1f, triton;dur=%.1f, total;dur=%.1f" % (
        1000 * timing.queue_s,
        1000 * timing.triton_s,
        1000 * seconds,
    )


def _failure(error: TritonflareError, request: Request) -> Response:
    if isinstance(error, AiError) and request.ai_request_id is None:
        request.ai_request_id = str(uuid4())  # it was refused before it had one; log and answer share it
    render = binding_form.failure if request.binding_form else envelope.failure
    return render(error, request.ai_request_id)

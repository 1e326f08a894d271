"""The application: routing, the one renderer of errors, access log, metrics."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from uuid import uuid4

from gateway.access_log import AccessLog
from gateway.domain.errors import AiError, BackendUnavailable, TritonflareError, UnknownError
from gateway.http import binding_form, envelope
from gateway.http.auth import authenticate
from gateway.http.local import is_local_binding
from gateway.http.message import Header, Request, Response
from gateway.http.metrics import Metrics
from gateway.http.miniflare import unwrap_miniflare
from gateway.http.router import Route, Router
from gateway.tokens import TokenTable

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
    ) -> None:
        self.routes = tuple(routes)
        self._router = Router(routes)
        self._tokens = tokens
        self._binding_without_token = binding_without_token
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, request: Request) -> tuple[Response, list[Header]]:
        """Answer a request, log and count it; return the answer with its headers."""
        started = time.perf_counter()
        request.ray_id = _new_ray_id()
        response = await self._answer(request)
        self._record(request, response, time.perf_counter() - started)
        return response, _headers_of(request, response)

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
        self._access_log.add(
            api=request.api,
            ok=response.status < 400,
            line=f"{request.method} {request.route} status={response.status} code={response.code} "
            f"ms={1000 * seconds:.1f} ray={request.ray_id} id={request.ai_request_id or '-'}",
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


def _failure(error: TritonflareError, request: Request) -> Response:
    if isinstance(error, AiError) and request.ai_request_id is None:
        request.ai_request_id = str(uuid4())  # it was refused before it had one; log and answer share it
    render = binding_form.failure if request.binding_form else envelope.failure
    return render(error, request.ai_request_id)

"""The application: routing, the one renderer of errors, access log, metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from uuid import uuid4

from gateway.access.authentication import authenticate, batch_owner
from gateway.access.tokens import TokenTable
from gateway.api import envelope
from gateway.api.binding.local_development import is_local_binding
from gateway.api.binding.miniflare import unwrap_miniflare
from gateway.api.context import RequestContext
from gateway.api.router import Route, Router
from gateway.domain.backend import Timing
from gateway.domain.errors import (
    AiError,
    BackendUnavailable,
    ClientDisconnected,
    DeadlineExceeded,
    MalformedRequest,
    NoRoute,
    Overloaded,
    TritonflareError,
    UnknownError,
    UnknownTransferCoding,
    without_frames,
)
from gateway.pipeline.observer import RequestObserver
from gateway.server import errors
from gateway.server.errors import RequestError
from gateway.server.message import Address, Header, HttpRequest, Response
from gateway.telemetry.client_address import ClientAddress
from gateway.telemetry.record import RequestRecord, new_ray_id

_log = logging.getLogger("tritonflare.http")


class App:
    """The gateway as a function from request to response."""

    def __init__(
        self,
        routes: Sequence[Route],
        tokens: TokenTable,
        observer: RequestObserver,
        *,
        binding_without_token: bool = False,
        client_address: ClientAddress | None = None,
    ) -> None:
        """Create the application.

        Args:
            routes: in the order in which they are tried.
            tokens: the accounts' tokens.
            observer: counts, traces and logs each request.
            binding_without_token: see the setting of the same name.
            client_address: finds the address of a request's client for the access log; None leaves it out.
        """
        self.routes = tuple(routes)
        self._router = Router(routes)
        self._tokens = tokens
        self._binding_without_token = binding_without_token
        self._observer = observer
        self._client_address = client_address

    async def __call__(self, request: HttpRequest) -> tuple[Response, list[Header]]:
        """Answer a request, log and count it; return the answer with its headers."""
        started = time.perf_counter()
        context = RequestContext(request, new_ray_id(), envelope.failure)
        if self._client_address is not None:
            context.record.client = self._client_address.of_request(request)
        response = await self._answer(context)
        request.body.discard()
        record = context.record
        record.seconds = time.perf_counter() - started
        self._note(context, response)
        headers = _headers_of(record, response)
        if record.ai_request_id is not None and response.code == 0:
            headers.append((b"server-timing", _server_timing(record.timing, record.seconds)))
        return response, headers

    def refuse(self, error: RequestError, peer: Address | None) -> tuple[Response, list[Header]]:
        """Render, log and count the refusal of what never became a request; return it with its headers."""
        request = RequestContext(HttpRequest("-", ""), new_ray_id(), envelope.failure)
        if self._client_address is not None:
            request.record.client = self._client_address.of_peer(peer)
        response = _failure(_refusal(error), request)
        self._note(request, response)
        return response, _headers_of(request.record, response)

    async def _answer(self, request: RequestContext) -> Response:
        """Run the handler; the one place where an exception becomes an answer."""
        try:
            is_wrapped = unwrap_miniflare(request.http)
            route = self._router.match(request)
            if is_wrapped and not route.api:
                raise NoRoute  # or it would bypass a proxy that blocks /metrics
            if route.api:
                self._observer.begin(request.http, request.record)
            if route.api and not route.checks_token and not self._is_local_binding(route, request):
                self._authenticate(route, request)
            return await route.handler(request)
        except TritonflareError as exc:
            return _failure(without_frames(exc), request)
        except RequestError as exc:
            return _failure(_refusal(without_frames(exc)), request)
        except asyncio.CancelledError as exc:
            # The server cancels what outlives the drain deadline; the task ends here either way, and
            # the caller deserves an envelope rather than the server's plain text.
            without_frames(exc)
            return _failure(BackendUnavailable(), request)
        except Exception as exc:
            # The outermost renderer: a defect of ours must not reach the caller as a traceback.
            _log.exception("request %s failed", request.record.ray_id, extra={"ray": request.record.ray_id})
            without_frames(exc)
            return _failure(UnknownError(), request)

    def _authenticate(self, route: Route, request: RequestContext) -> None:
        """Check the token, and note whose request this is; see `authenticate`."""
        http, named = request.http, request.params.get("account_id")
        request.account = authenticate(http, named, self._tokens, ai_gateway=route.ai_gateway)
        request.batch_owner = batch_owner(http, request.account, ai_gateway=route.ai_gateway)

    def _is_local_binding(self, route: Route, request: RequestContext) -> bool:
        return self._binding_without_token and route.tokenless and is_local_binding(request.http)

    def _note(self, request: RequestContext, response: Response) -> None:
        """Give metrics, traces and the access log what they have to know of an answer."""
        record = request.record
        record.status, record.code = response.status, response.code
        self._observer.end(record, api=request.api)


def _headers_of(record: RequestRecord, response: Response) -> list[Header]:
    """The headers that every answer carries, then its own, and the version of the model that it is of."""
    headers = [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        (b"cf-ray", record.ray_id.encode()),
        *response.headers,
    ]
    if record.version is not None and response.code == 0:
        headers.append((b"x-model-version", record.version.encode()))
    return headers


def _server_timing(timing: Timing | None, seconds: float) -> bytes:
    """Split the time of a successful run, in milliseconds (W3C Server Timing); the total alone if unsent."""
    if timing is None:
        return b"total;dur=%.1f" % (1000 * seconds)
    return b"queue;dur=%.1f, triton;dur=%.1f, total;dur=%.1f" % (
        1000 * timing.queue_s,
        1000 * timing.triton_s,
        1000 * seconds,
    )


_REFUSALS: dict[type[RequestError], Callable[[], TritonflareError]] = {
    errors.InvalidRequest: MalformedRequest,
    errors.UnsupportedTransferCoding: UnknownTransferCoding,
    errors.RequestTimeout: DeadlineExceeded,
    errors.ServerBusy: Overloaded,
    errors.PeerDisconnected: ClientDisconnected,
}


def _refusal(error: RequestError) -> TritonflareError:
    """Return what a refusal of the server is in the API."""
    return _REFUSALS[type(error)]()


def _failure(error: TritonflareError, request: RequestContext) -> Response:
    record = request.record
    if isinstance(error, AiError) and record.ai_request_id is None:
        record.ai_request_id = str(uuid4())  # it was refused before it had one; log and answer share it
    return request.render_failure(error, record.ai_request_id)

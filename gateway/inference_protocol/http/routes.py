"""Which path under ``/v2`` leads to which handler."""

from __future__ import annotations

from gateway.api.request_body import BodyReader
from gateway.api.router import Handler, Route
from gateway.domain.monitor import Monitor
from gateway.inference_protocol.http.handlers import Infer, ModelInfo, ServerInfo
from gateway.inference_protocol.http.response import failure
from gateway.inference_protocol.infer import ModelInfer
from gateway.inference_protocol.models import ModelDirectory

_MODEL = "/v2/models/{model:path}"
_VERSION = _MODEL + "/versions/{version}"
_GET = ("GET", "HEAD")
_POST = ("POST",)


def protocol_routes(
    directory: ModelDirectory, infer: ModelInfer, monitor: Monitor, bodies: BodyReader, timeout_s: float
) -> tuple[Route, ...]:
    """Routes in the order in which they are tried.

    ``{model}`` takes slashes, so what follows a name comes before what ends with one.

    Args:
        directory: finds and describes models.
        infer: answers requests for inference.
        monitor: knows whether requests would be served.
        bodies: reads the bodies of requests.
        timeout_s: for a body to arrive.
    """
    server = ServerInfo(monitor)
    models = ModelInfo(directory, bodies, timeout_s)
    answer = Infer(infer, bodies)
    return (
        *_with_version(_POST, "/infer", answer),
        *_with_version(_GET, "/ready", models.ready),
        *_with_version(_GET, "/config", models.config),
        _route(_GET, "/v2/models/stats", server.unsupported),
        _route(_GET, _MODEL + "/stats", server.unsupported),
        _route((*_GET, *_POST), _MODEL + "/trace/setting", server.unsupported),
        *_with_version(_GET, "", models.metadata),
        _route(_GET, "/v2/health/live", server.live, api=False),
        _route(_GET, "/v2/health/ready", server.ready, api=False),
        _route(_POST, "/v2/repository/index", models.index),
        _route(_GET, "/v2", server.metadata),
        _route(_GET, "/v2/", server.metadata),
        _route((*_GET, *_POST), "/v2/{path:path}", server.unsupported),
    )


def _with_version(methods: tuple[str, ...], ending: str, handler: Handler) -> tuple[Route, Route]:
    return _route(methods, _VERSION + ending, handler), _route(methods, _MODEL + ending, handler)


def _route(methods: tuple[str, ...], template: str, handler: Handler, *, api: bool = True) -> Route:
    return Route(methods, template, handler, api=api, render_failure=failure)

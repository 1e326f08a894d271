"""Handlers of ``/v2``: server, models, inference."""

from __future__ import annotations

import re
from uuid import uuid4

import msgspec

from gateway.api.context import RequestContext
from gateway.api.request_body import BodyReader
from gateway.domain.catalogue import Model
from gateway.domain.errors import MethodNotImplemented, NoRoute
from gateway.domain.monitor import Monitor
from gateway.inference_protocol import unsupported
from gateway.inference_protocol.http import response
from gateway.inference_protocol.http.description import model_config, model_metadata, server_metadata
from gateway.inference_protocol.http.request import HEADER_LENGTH, InferBody, read_infer_body
from gateway.inference_protocol.infer import ModelInfer
from gateway.inference_protocol.messages import InferRequest
from gateway.inference_protocol.models import ModelDirectory
from gateway.json_body import decode_json
from gateway.pipeline.deadline import RequestDeadline
from gateway.server.message import Response

_HEADER_LENGTH = HEADER_LENGTH.lower().encode()

_UNSUPPORTED = (
    (
        re.compile(r"/v2/(system|cuda)sharedmemory/(region/.+/)?(status|register|unregister)"),
        unsupported.SHARED_MEMORY,
    ),
    (re.compile(r"/v2/repository/models/.+/(load|unload)"), unsupported.MODEL_CONTROL),
    (re.compile(r"/v2/logging|/v2/(models/.+/)?trace/setting"), unsupported.SETTINGS),
    (re.compile(r"/v2/models/(.+/)?stats"), unsupported.STATISTICS),
)
"""Paths of Triton's operations that the gateway does not have, and why they are refused."""


class _IndexRequest(msgspec.Struct):
    ready: bool = False
    """Whether only models that are ready are listed."""


class ServerInfo:
    """Handlers of questions about the server."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def metadata(self, context: RequestContext) -> Response:
        """Return name, version and extensions of the server."""
        return response.answer(server_metadata())

    async def live(self, context: RequestContext) -> Response:
        """Return 200 as long as the process can answer at all."""
        return response.answer({"live": True})

    async def ready(self, context: RequestContext) -> Response:
        """Return 200 when requests would be served, else 503."""
        ready = self._monitor.is_ready()
        return response.answer({"ready": ready}, 200 if ready else 503)

    async def unsupported(self, context: RequestContext) -> Response:
        """Refuse an operation of Triton that the gateway does not have, or a path that is none.

        Raises:
            MethodNotImplemented: the former.
            NoRoute: the latter.
        """
        for path, sentence in _UNSUPPORTED:
            if path.fullmatch(context.http.raw_path):
                raise MethodNotImplemented(sentence)
        raise NoRoute


class ModelInfo:
    """Handlers of questions about models.

    Args:
        models: finds and describes them.
        bodies: reads the bodies of requests.
        timeout_s: for a body to arrive.
    """

    def __init__(self, models: ModelDirectory, bodies: BodyReader, timeout_s: float) -> None:
        self._models = models
        self._bodies = bodies
        self._timeout_s = timeout_s

    async def metadata(self, context: RequestContext) -> Response:
        """Return inputs, outputs and parameters of a model."""
        return response.answer(model_metadata(self._models.describe(*self._find(context))))

    async def config(self, context: RequestContext) -> Response:
        """Return what a client needs of a model's ModelConfig."""
        return response.answer(model_config(self._models.describe(*self._find(context))))

    async def ready(self, context: RequestContext) -> Response:
        """Return 200 if a model answers, else 503."""
        name, model = self._find(context)
        ready = self._models.is_ready(model)
        return response.answer({"name": name, "ready": ready}, 200 if ready else 503)

    async def index(self, context: RequestContext) -> Response:
        """List the models by their public names.

        Raises:
            BackendUnavailable: no model is known; an empty list would mean that there is none.
        """
        with RequestDeadline(self._timeout_s) as deadline:
            body = await self._bodies.read(context.http, deadline, deflate=True)
        only_ready = decode_json(body, _IndexRequest).ready if body.strip() else False
        entries = [
            {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
            for entry in self._models.index(only_ready=only_ready)
        ]
        return response.answer(entries)

    def _find(self, context: RequestContext) -> tuple[str, Model]:
        name = context.params["model"]
        return name, self._models.find(name, context.params.get("version", ""), context.record)


class Infer:
    """Handler of ``…/infer``."""

    def __init__(self, infer: ModelInfer, bodies: BodyReader) -> None:
        self._infer = infer
        self._bodies = bodies

    async def __call__(self, context: RequestContext) -> Response:
        """Answer a request for inference."""
        context.record.ai_request_id = str(uuid4())
        asked: InferBody | None = None

        def parse(body: bytes) -> InferRequest:
            nonlocal asked
            asked = read_infer_body(
                context.params["model"],
                context.params.get("version", ""),
                body,
                context.http.headers(_HEADER_LENGTH),
            )
            return asked.request

        inferred = await self._infer(
            context.caller, lambda deadline: self._bodies.read(context.http, deadline, deflate=True), parse
        )
        rendered = response.infer_response(inferred, asked.binary if asked is not None else ())
        response.compress(rendered, context.http.headers(b"accept-encoding"))
        rendered.headers.append((b"cf-ai-req-id", context.record.ai_request_id.encode()))
        return rendered

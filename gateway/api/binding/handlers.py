"""What a Worker's AI binding calls: ``/run`` in three generations, and wrangler's way to it.

| generation | URL | request | answer |
|---|---|---|---|
| native ``env.AI``, ``@cloudflare/ai`` 1.2 | ``/run?version=3`` | ``{"inputs", "options"}`` | array |
| ``@cloudflare/ai`` 1.1 | ``/run?version=2`` | the same | array, gzip, unannounced |
| ``@cloudflare/ai`` 1.0 | ``/run`` | tensors, gzip | tensors |

The model stands in the header ``cf-consn-model-id``. With ``gateway`` among the options the path is
``/ai-gateway/run``, which is the same call; `gateway.api.ai_gateway` reads these options. ``version=3`` takes
batches too: ``requests`` among the inputs. ``env.AI.gateway(id)`` has paths of its own, ``/ai-gateway/…``.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from gateway.api.ai_gateway.options import read_request_options, with_options
from gateway.api.ai_gateway.queries import GatewayQueries
from gateway.api.ai_gateway.universal import Universal
from gateway.api.binding import rendering, tensors
from gateway.api.context import RequestContext
from gateway.api.predict import PredictBody
from gateway.api.router import Handler, Route, Router
from gateway.batches.queue import FetchedBatch
from gateway.batches.store import PendingBatch
from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput, MalformedBody, NoRoute, NoSuchModel
from gateway.domain.requests import Call, PollCall, read_single
from gateway.domain.service import Classification, TaskAnswer
from gateway.domain.tasks import Task
from gateway.domain.validate import asks_for_batch, may_ask_for_batch, parse_json
from gateway.server.message import Response

RUN_PATHS = ("/run", "/ai-gateway/run")
MODELS_PATH = "/ai-api/models/search"

_METHODS = ("GET", "POST")
_PROXY_METHODS = (*_METHODS, "PATCH")
_Version = Literal["tensor", "2", "3"]


class Binding:
    """Handlers of the binding's routes."""

    def __init__(
        self, predict: PredictBody, search_models: Handler, universal: Universal, queries: GatewayQueries
    ) -> None:
        self._predict = predict
        gateway = "/ai-gateway/gateways/{gateway_id}"
        self._routes = (
            *(_route(_METHODS, path, self.run) for path in RUN_PATHS),
            _route(("GET",), MODELS_PATH, search_models),
            _route(("POST",), "/ai-gateway/universal/run/{gateway_id}", universal),
            _route(("GET",), gateway + "/url/{provider}", queries.url),
            _route(("GET", "PATCH"), gateway + "/logs/{log_id}", queries.log),
        )
        self._forwarded = Router(self._routes)

    def routes(self, api_prefix: str) -> tuple[Route, ...]:
        """Return the routes; they must stand before ``ai/run/{model}``, which would match the proxy's."""
        proxy = Route(_PROXY_METHODS, api_prefix + "/accounts/{account_id}/ai/run/proxy", self.proxy)
        return (proxy, *self._routes)

    async def run(self, request: RequestContext) -> Response:
        """Answer ``/run``: version → model → admission → body → parse → rate → validate → infer.

        Raises:
            AiError: rendered in the binding's form. A GET is what ``websocket: true`` among the options
                makes of a run, and gets BadInput.
        """
        request.render_failure = rendering.failure
        ai_request_id = request.record.ai_request_id = _ai_request_id(request)
        request.options = read_request_options(request.http)
        if request.http.method == "GET":
            raise BadInput("Error: option 'websocket' is not supported by this server")
        version = _version(request)
        model = self._model(request)
        if version == "tensor" and isinstance(model, Model) and model.task is Task.RERANK:
            raise BadInput("Error: @cloudflare/ai 1.0 knows no rerankers, use env.AI.run instead")
        debug = False

        def read(body: bytes) -> tuple[Model, Call] | PollCall:
            nonlocal debug
            self._predict.check_size(body, may_queue=may_ask_for_batch(body))
            payload = parse_json(body)
            debug = _wants_debug(payload)
            asked = self._read(body, payload, model, version)
            return with_options(asked, payload, request, self._predict.long_texts)

        if isinstance(model, NoSuchModel):
            outcome = await self._predict.poll(request, read, model)
        else:
            # Only the body tells whether a batch is to be queued.
            outcome = await self._predict(request, read, may_queue=version == "3")
        match outcome:
            case PendingBatch():
                return rendering.pending_batch(outcome, ai_request_id)
            case FetchedBatch():
                batch_id = outcome.id
                return await self._predict.render(
                    outcome, lambda items: rendering.batch(items, ai_request_id, batch_id)
                )
            case list():
                return rendering.batch(outcome, ai_request_id)
            case _:
                return _render(outcome, version, ai_request_id, debug=debug)

    async def proxy(self, request: RequestContext) -> Response:
        """Answer ``/accounts/{account_id}/ai/run/proxy``, by which wrangler forwards what the binding calls.

        ``X-Forwarded`` holds the URL of that call; the first wranglers to do so left it out and only ran
        models.

        Raises:
            NoRoute: the binding has no such path.
            MethodNotSupported: it has, but not for this method.
        """
        urls = request.http.headers(b"x-forwarded")
        try:
            url = urlsplit(urls[0] if urls else RUN_PATHS[0])
        except ValueError:
            raise NoRoute from None
        request.http.retarget(url.path, url.query)
        label = request.record.route
        try:
            route = self._forwarded.match(request)
        finally:
            request.record.route = label  # the path that was called
        return await route.handler(request)

    def _read(
        self, body: bytes, payload: object, model: Model | NoSuchModel, version: _Version
    ) -> tuple[Model, Call] | PollCall:
        inputs = _inputs(payload, version)
        if version == "3":
            return self._predict.read(body, inputs, model, queued=asks_for_batch(payload))
        if isinstance(model, NoSuchModel):
            raise model
        return model, read_single(inputs, model.task, self._predict.limits)

    def _model(self, request: RequestContext) -> Model | NoSuchModel:
        names = request.http.headers(b"cf-consn-model-id")
        if not names:
            raise MalformedBody("cf-consn-model-id")
        name = names[0]
        if not name.startswith("@"):
            # new Ai(binding, {prefix}) writes prefix:@cf/…
            name = name.partition(":")[2] or name
        return self._predict.find_model_unless_polled(request, name)


def _route(methods: tuple[str, ...], template: str, handler: Handler) -> Route:
    return Route(methods, template, handler, tokenless=True, ai_gateway=True)


def _ai_request_id(request: RequestContext) -> str:
    """A new id, or the one that ``@cloudflare/ai`` 1.0 made and shows to the Worker as its own."""
    given = request.http.headers(b"cf-ai-req-id")
    try:
        return str(UUID(given[0])) if given else str(uuid4())
    except ValueError:
        return str(uuid4())


def _version(request: RequestContext) -> _Version:
    match request.http.query("version"):
        case "2":
            return "2"
        case "3":
            return "3"
        case None:
            return _version_of_sdk(request)
        case _:
            raise BadInput("Error: query parameter 'version' must be 2 or 3")


def _version_of_sdk(request: RequestContext) -> _Version:
    sdk = "".join(request.http.headers(b"cf-consn-sdk-version"))
    if sdk.startswith("1.0."):
        return "tensor"
    if sdk.startswith("1.1."):
        return "2"
    return "3" if sdk else "tensor"


def _inputs(payload: object, version: _Version) -> object:
    if version == "tensor":
        return tensors.inputs_of(payload)
    return payload.get("inputs") if isinstance(payload, dict) else None


def _wants_debug(payload: object) -> bool:
    options = payload.get("options") if isinstance(payload, dict) else None
    return isinstance(options, dict) and bool(options.get("debug"))


def _render(answer: TaskAnswer, version: _Version, ai_request_id: str, *, debug: bool) -> Response:
    if version == "2":
        return rendering.gzipped(answer, ai_request_id, debug=debug)
    if version == "tensor" and isinstance(answer, Classification):
        return rendering.tensors(answer, ai_request_id)
    return rendering.answer(answer, ai_request_id)

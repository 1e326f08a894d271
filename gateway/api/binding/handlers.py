"""What a Worker's AI binding calls: ``/run`` in three generations, and wrangler's way to it.

| generation | URL | request | answer |
|---|---|---|---|
| native ``env.AI``, ``@cloudflare/ai`` 1.2 | ``/run?version=3`` | ``{"inputs", "options"}`` | array |
| ``@cloudflare/ai`` 1.1 | ``/run?version=2`` | the same | array, gzip, unannounced |
| ``@cloudflare/ai`` 1.0 | ``/run`` | tensors, gzip | tensors |

The model stands in the header ``cf-consn-model-id``. With ``gateway`` among the options the path is
``/ai-gateway/run``; there is no gateway here, so it is the same call. ``version=3`` takes batches too:
``requests`` among the inputs.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from gateway.access.admission import Admission
from gateway.access.rate_limit import RateLimit
from gateway.api.batch import BatchRunner
from gateway.api.binding import rendering as binding_form
from gateway.api.binding import tensors as tensor
from gateway.api.deadline import RequestDeadline
from gateway.api.request_body import BodyReader
from gateway.api.router import Handler, Route
from gateway.api.run import RunLimits, find_model
from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import BadInput, MalformedBody, NoRoute
from gateway.domain.service import Classification, Classifier
from gateway.domain.validate import parse_json, requests_of, text_of, wants_queue
from gateway.server.message import Request, Response
from gateway.telemetry.metrics import Metrics

RUN_PATHS = ("/run", "/ai-gateway/run")
MODELS_PATH = "/ai-api/models/search"

_METHODS = ("GET", "POST")
_Version = Literal["tensor", "2", "3"]


class Binding:
    """Handlers of the binding's routes."""

    def __init__(
        self,
        catalogue: Catalogue,
        classifier: Classifier,
        batches: BatchRunner,
        bodies: BodyReader,
        admission: Admission,
        metrics: Metrics,
        limits: RunLimits,
        rate: RateLimit,
        search_models: Handler,
    ) -> None:
        self._catalogue = catalogue
        self._classifier = classifier
        self._batches = batches
        self._bodies = bodies
        self._admission = admission
        self._metrics = metrics
        self._limits = limits
        self._rate = rate
        self._search_models = search_models

    def routes(self, api_prefix: str) -> tuple[Route, ...]:
        """Return the routes; they must stand before ``ai/run/{model}``, which would match the proxy's."""
        return (
            Route(_METHODS, api_prefix + "/accounts/{account_id}/ai/run/proxy", self.proxy),
            *(Route(_METHODS, path, self.run, tokenless=True) for path in RUN_PATHS),
            Route(("GET",), MODELS_PATH, self._search_models, tokenless=True),
        )

    async def run(self, request: Request) -> Response:
        """Answer ``/run``: version → model → admission → body → parse → rate → validate → infer.

        Raises:
            AiError: rendered in the binding's form. A GET is what ``websocket: true`` among the options
                makes of a run, and gets BadInput.
        """
        request.binding_form = True
        ai_request_id = request.ai_request_id = _ai_request_id(request)
        if request.method == "GET":
            raise BadInput("Error: option 'websocket' is not supported by this server")
        version = _version(request)
        model = self._model(request)
        with RequestDeadline(self._limits.request_timeout_s) as deadline:
            body = await self._bodies.body_of(request, deadline)
            with self._admission:
                payload = parse_json(body)
                inputs = _inputs(payload, version)
                requests = self._requests(inputs, payload) if version == "3" else None
                if requests is not None:
                    items = await self._batches.run(request, model, requests, deadline)
                    return binding_form.batch(items, ai_request_id)
                await self._rate.spend(request)
                text = text_of(inputs)
                deadline.watch_for_disconnect(request)
                answer = await self._classifier.classify(model, text, deadline.remaining_s())
        request.timing = answer.timing
        self._metrics.text_classified(model.name, answer)
        return _render(answer, version, ai_request_id, debug=_wants_debug(payload))

    async def proxy(self, request: Request) -> Response:
        """Answer ``/accounts/{account_id}/ai/run/proxy``, by which wrangler forwards what the binding calls.

        ``X-Forwarded`` holds the URL of that call; the first wranglers to do so left it out and only ran
        models.

        Raises:
            NoRoute: the binding has no such path, or not for this method.
        """
        urls = request.headers(b"x-forwarded")
        try:
            url = urlsplit(urls[0] if urls else RUN_PATHS[0])
        except ValueError:
            raise NoRoute from None
        request.retarget(url.path, url.query)
        if url.path in RUN_PATHS:
            return await self.run(request)
        if url.path == MODELS_PATH and request.method == "GET":
            return await self._search_models(request)
        raise NoRoute

    def _requests(self, inputs: object, payload: object) -> list[object] | None:
        return requests_of(inputs, wants_queue(payload), self._limits.max_batch_texts)

    def _model(self, request: Request) -> Model:
        names = request.headers(b"cf-consn-model-id")
        if not names:
            raise MalformedBody("cf-consn-model-id")
        name = names[0]
        if not name.startswith("@"):
            # new Ai(binding, {prefix}) writes prefix:@cf/…
            name = name.partition(":")[2] or name
        return find_model(self._catalogue, request, name)


def _ai_request_id(request: Request) -> str:
    """A new id, or the one that ``@cloudflare/ai`` 1.0 made and shows to the Worker as its own."""
    given = request.headers(b"cf-ai-req-id")
    try:
        return str(UUID(given[0])) if given else str(uuid4())
    except ValueError:
        return str(uuid4())


def _version(request: Request) -> _Version:
    match request.query("version"):
        case "2":
            return "2"
        case "3":
            return "3"
        case None:
            return _version_of_sdk(request)
        case _:
            raise BadInput("Error: query parameter 'version' must be 2 or 3")


def _version_of_sdk(request: Request) -> _Version:
    sdk = "".join(request.headers(b"cf-consn-sdk-version"))
    if sdk.startswith("1.0."):
        return "tensor"
    if sdk.startswith("1.1."):
        return "2"
    return "3" if sdk else "tensor"


def _inputs(payload: object, version: _Version) -> object:
    if version == "tensor":
        return tensor.inputs_of(payload)
    return payload.get("inputs") if isinstance(payload, dict) else None


def _wants_debug(payload: object) -> bool:
    options = payload.get("options") if isinstance(payload, dict) else None
    return isinstance(options, dict) and bool(options.get("debug"))


def _render(answer: Classification, version: _Version, ai_request_id: str, *, debug: bool) -> Response:
    match version:
        case "tensor":
            return binding_form.tensors(answer, ai_request_id)
        case "2":
            return binding_form.gzipped(answer, ai_request_id, debug=debug)
        case "3":
            return binding_form.classification(answer, ai_request_id)

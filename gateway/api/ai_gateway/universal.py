"""The universal endpoint: several ways to an answer, tried in turn until one succeeds.

``POST /v1/{account}/{gateway}``, and ``env.AI.gateway(id).run(…)`` of a Worker, with an array of
``{"provider", "endpoint", "headers", "query"}``. At Cloudflare, the providers are those of the world; here
there is one, ``workers-ai``. Answers have the form of the REST API, also those to a Worker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

from gateway.api import long_texts
from gateway.api.ai_gateway.options import REQUEST_TIMEOUT, options_of, read_request_options
from gateway.api.context import RequestContext
from gateway.api.predict import PredictBody
from gateway.api.run import render_outcome
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BadInput, DeadlineExceeded, without_frames
from gateway.domain.options import CallOptions
from gateway.domain.requests import Call, PollCall
from gateway.domain.validate import ResultShape, parse_json, printable, string, types_of
from gateway.pipeline.queued import RunOutcome
from gateway.server.message import Response

PROVIDER = "workers-ai"
_MOST_STEPS = 10
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class _Step:
    """One way to an answer."""

    provider: str
    endpoint: str
    query: object
    headers: Mapping[str, str]
    """Names in lower case; among them, what is not a string is left out."""


class Universal:
    """Handler of the universal endpoint."""

    def __init__(self, predict: PredictBody, shape: ResultShape) -> None:
        self._predict = predict
        self._shape = shape

    async def __call__(self, context: RequestContext) -> Response:
        """Answer with the first step that succeeds; ``cf-aig-step`` is its index.

        Together the steps have the time of one request. Each counts in the rate as a request of its own.

        Raises:
            TritonflareError: none did. The error is that of the last step for ``workers-ai``; without one,
                that of the first step.
        """
        context.record.ai_request_id = str(uuid4())
        context.options = read_request_options(context.http)
        ends = time.monotonic() + self._predict.request_timeout_s
        steps = _read_steps(parse_json(await self._predict.receive(context)))
        failure: AiError | None = None
        for place, step in enumerate(steps):
            if step.provider != PROVIDER:
                failure = failure or foreign(step.provider)
                continue
            left_s = ends - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded
            try:
                outcome = await self._try(context, step, left_s)
            except AiError as exc:
                failure = without_frames(exc)
                continue
            response = await render_outcome(self._predict, outcome, self._shape, context.record.ai_request_id)
            response.headers.append((b"cf-aig-step", b"%d" % place))
            return response
        raise failure or RuntimeError("a universal request has no step")

    async def _try(self, context: RequestContext, step: _Step, left_s: float) -> RunOutcome:
        options = options_of(step.headers).over(context.options)
        patience_s = left_s if options.patience_s is None else min(options.patience_s, left_s)

        def read(payload: object) -> tuple[Model, Call] | PollCall:
            name = self._predict.routed_name(step.endpoint.removeprefix("/"))
            asked = self._predict.read(b"", payload, self._predict.find_model(context, name), queued=False)
            if isinstance(asked, PollCall):
                return asked
            model, call = asked
            chosen = long_texts.choose(model, options.long_texts, self._predict.long_texts)
            kept = CallOptions(options.skip_cache, options.cache_ttl_s, long_texts=chosen)
            return model, replace(call, options=kept)

        return await self._predict.answer(replace(context.caller, patience_s=patience_s), step.query, read)


def foreign(provider: str) -> BadInput:
    """Return the error of a provider that is not served."""
    shown = printable(provider)[:_SHOWN_CHARS]
    return BadInput(f"Error: provider '{shown}' is not served here, only '{PROVIDER}' is")


def _read_steps(payload: object) -> list[_Step]:
    """Read the steps of a universal request.

    Raises:
        BadInput: it is not an array of 1 to 10 steps, or one of them is malformed.
    """
    if not isinstance(payload, list):
        raise BadInput(f"Error: Type mismatch of '/', 'array' not in {types_of(payload)}")
    if not payload:
        raise BadInput("Error: Length of '/' must be >= 1 not met")
    if len(payload) > _MOST_STEPS:
        raise BadInput(f"Error: Length of '/' must be <= {_MOST_STEPS}")
    return [_read_step(item, f"/{place}") for place, item in enumerate(payload)]


def _read_step(item: object, path: str) -> _Step:
    if not isinstance(item, dict):
        raise BadInput(f"Error: Type mismatch of '{path}', 'object' not in {types_of(item)}")
    if not {"provider", "endpoint", "query"} <= item.keys():
        raise BadInput(f"Error: required properties at '{path}' are 'provider,endpoint,query'")
    headers = item.get("headers")
    if headers is None:
        headers = {}
    if not isinstance(headers, dict):
        raise BadInput(f"Error: Type mismatch of '{path}/headers', 'object' not in {types_of(headers)}")
    named = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    config = item.get("config")
    timeout = config.get("requestTimeout") if isinstance(config, dict) else None
    if isinstance(timeout, int) and not isinstance(timeout, bool):
        named.setdefault(REQUEST_TIMEOUT, str(timeout))
    return _Step(
        string(item["provider"], f"{path}/provider"),
        printable(string(item["endpoint"], f"{path}/endpoint")),
        item["query"],
        named,
    )

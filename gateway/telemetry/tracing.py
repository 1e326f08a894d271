"""Traces: a span for each request and one for each call to Triton, in the W3C context of the client.

Only a gateway with an OTLP endpoint imports this module. Many requests share one call, and a span has one
parent: the call joins the trace of the oldest traced request in it, and is linked with all others. Texts
carry the span of their request through the coalescer, which so needs to know nothing of traces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from importlib.metadata import version

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.domain.backend import Backend, RawScores
from gateway.domain.catalogue import Ensemble, Model
from gateway.domain.coalesce import Answer, AnswerSource
from gateway.domain.errors import AiError
from gateway.server.message import HttpRequest
from gateway.telemetry.record import RequestRecord

_EXPORT_TIMEOUT_S = 5
_current_call: ContextVar[Span | None] = ContextVar("call", default=None)
"""The span of the call that the running task makes."""


class _TracedText(bytes):
    """A text that knows the span of the request that it came with."""

    span: Span


def _traced(text: bytes, span: Span) -> _TracedText:
    marked = _TracedText(text)
    marked.span = span
    return marked


class Tracing:
    """Makes spans and sends them off in the background.

    Args:
        endpoint: URL of an OTLP/HTTP collector, its path included.
        share: of the requests without a context of their own, how many are traced, 0 to 1.
    """

    def __init__(self, endpoint: str, share: float) -> None:
        own = Resource({SERVICE_NAME: "tritonflare-gateway", SERVICE_VERSION: version("tritonflare")})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=own.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint, timeout=_EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tritonflare")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, request: HttpRequest, record: RequestRecord) -> Callable[[], None] | None:
        """Open the span of a request, for the task that runs this.

        Returns:
            What ends it, once ``record`` has the answer; None if the request is not traced.
        """
        carrier = {
            name: values for name in ("traceparent", "tracestate") if (values := _header(request, name))
        }
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            self._propagator.extract(carrier, context.Context()),
            SpanKind.SERVER,
            {
                "http.request.method": record.method,
                "http.route": record.route,
                "tritonflare.ray": record.ray_id,
            },
        )
        # Even one that is not recorded: the task may have begun with another request's.
        context.attach(trace.set_span_in_context(span, context.Context()))
        if not span.is_recording():
            return None
        record.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        return partial(_end, span, record)

    def source(self, source: AnswerSource) -> AnswerSource:
        """Let the texts of traced requests carry their span into ``source``."""
        return _TracedSource(source)

    def backend(self, backend: Backend) -> Backend:
        """Open a span for each call to ``backend`` that has such a text."""
        return _TracedBackend(backend, self._tracer)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the context of the call that the running task makes, for Triton.

        Nothing without a span: Triton traces every call that comes with a context, whatever its flags say.
        """
        span = _current_call.get()
        if span is None:
            return ()
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span, context.Context()))
        return tuple(carrier.items())

    def close(self) -> None:
        """Send what is left; blocks for some seconds if the collector does not answer."""
        self._provider.shutdown()


def _header(request: HttpRequest, name: str) -> list[str]:
    return request.headers(name.encode())


def _end(span: Span, record: RequestRecord) -> None:
    span.set_attribute("http.response.status_code", record.status)
    span.set_attribute("tritonflare.code", record.code)
    span.set_attribute("tritonflare.model", record.model)
    if record.ai_request_id is not None:
        span.set_attribute("tritonflare.request_id", record.ai_request_id)
    if record.timing is not None:
        span.set_attribute("tritonflare.queue_ms", round(1000 * record.timing.queue_s, 3))
        span.set_attribute("tritonflare.triton_ms", round(1000 * record.timing.triton_s, 3))
    if record.status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


class _TracedSource:
    def __init__(self, source: AnswerSource) -> None:
        self._source = source

    async def classify(self, model: Model, texts: Sequence[bytes], deadline_s: float) -> list[Answer]:
        span = trace.get_current_span()
        if span.is_recording():
            texts = [_traced(text, span) for text in texts]
        return await self._source.classify(model, texts, deadline_s)


class _TracedBackend:
    def __init__(self, backend: Backend, tracer: trace.Tracer) -> None:
        self._backend = backend
        self._tracer = tracer

    async def discover(self) -> Sequence[Ensemble]:
        return await self._backend.discover()

    async def classify(self, model: Model, texts: Sequence[bytes], deadline_s: float) -> Sequence[RawScores]:
        requests = list(dict.fromkeys(text.span for text in texts if isinstance(text, _TracedText)))
        if not requests:
            # The task may have begun in the context of another call.
            _current_call.set(None)
            return await self._backend.classify(model, texts, deadline_s)
        span = self._call_span(model, len(texts), requests)
        _current_call.set(span)
        try:
            return await self._backend.classify(model, texts, deadline_s)
        except AiError as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def _call_span(self, model: Model, texts: int, requests: Sequence[Span]) -> Span:
        oldest, *others = requests
        span = self._tracer.start_span(
            "ModelInfer",
            trace.set_span_in_context(oldest, context.Context()),
            SpanKind.CLIENT,
            {"rpc.system": "grpc", "tritonflare.model": model.name, "tritonflare.texts": texts},
            [Link(other.get_span_context()) for other in others],
        )
        for other in others:
            other.add_link(span.get_span_context())
        return span

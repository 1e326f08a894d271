"""Traces: a span for each request and one for each call to Triton, in the W3C context of the client.

Only a gateway with an OTLP endpoint imports this module. Many requests share one call, and a span has one
parent: the call joins the trace of the oldest traced request in it, and is linked with all others. The
span of a request is the context that its texts carry through the coalescer (`CallTracer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError
from gateway.headers import HeaderSource
from gateway.telemetry.record import RequestRecord

_EXPORT_TIMEOUT_S = 5
_GRPC_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's status codes by number."""
_current_call: ContextVar[Span | None] = ContextVar("call", default=None)
"""The span of the call that the running task makes."""


class Tracing:
    """Makes spans and exports them in the background; a `CallTracer` for the coalescer.

    Args:
        endpoint: URL of an OTLP/HTTP collector, its path included.
        share: fraction of the requests without a trace context that are traced, 0 to 1.
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

    def begin(self, request: HeaderSource, record: RequestRecord) -> Callable[[], None] | None:
        """Open the span of a request, for the task that runs this.

        Returns:
            A function that ends the span, once ``record`` has the answer; None if it is not traced.
        """
        carrier = {
            name: values for name in ("traceparent", "tracestate") if (values := _header(request, name))
        }
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            self._propagator.extract(carrier, context.Context()),
            SpanKind.SERVER,
            {**_attributes(record), "tritonflare.ray": record.ray_id},
        )
        # Even one that is not recorded: the task may have begun with another request's.
        context.attach(trace.set_span_in_context(span, context.Context()))
        if not span.is_recording():
            return None
        record.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        return partial(_end, span, record)

    def request_context(self) -> Span | None:
        """Return the span of the request that the running task answers, if it is traced."""
        span = trace.get_current_span()
        return span if span.is_recording() else None

    @contextmanager
    def call(self, model: Model, contexts: Sequence[object | None]) -> Iterator[None]:
        """Open a span for the call that the running task makes, if any of its texts has one."""
        requests = list(dict.fromkeys(each for each in contexts if isinstance(each, Span)))
        if not requests:
            # The task may have begun in the context of another call.
            _current_call.set(None)
            yield
            return
        span = self._call_span(model, len(contexts), requests)
        _current_call.set(span)
        try:
            yield
        except AiError as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trace context of the call that the running task makes, as gRPC metadata.

        Empty without a span: Triton traces every call that has a context, and ignores its sampled flag.
        """
        span = _current_call.get()
        if span is None:
            return ()
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span, context.Context()))
        return tuple(carrier.items())

    def close(self) -> None:
        """Export the remaining spans; blocks for some seconds if the collector does not answer."""
        self._provider.shutdown()

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


def _header(request: HeaderSource, name: str) -> list[str]:
    return request.headers(name.encode())


def _attributes(record: RequestRecord) -> dict[str, str]:
    """Name the method (OpenTelemetry's semantic conventions for RPC and HTTP spans)."""
    if record.is_grpc:
        service, _, method = record.route.strip("/").partition("/")
        return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return {"http.request.method": record.method, "http.route": record.route}


def _end(span: Span, record: RequestRecord) -> None:
    if record.grpc_status is None:
        span.set_attribute("http.response.status_code", record.status)
    else:
        span.set_attribute("rpc.grpc.status_code", _GRPC_CODES.index(record.grpc_status))
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

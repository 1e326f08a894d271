"""A collector on loopback: takes spans over OTLP/HTTP, in protobuf or JSON, and keeps them."""

from __future__ import annotations

import gzip
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.servers import wait_until


@dataclass(frozen=True)
class Span:
    """What a test looks at; ids are hexadecimal."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: frozenset[tuple[str, str]]
    """Trace and span of each."""
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int
    failed: bool


@dataclass
class Collector:
    """Use `collecting`."""

    port: int
    spans: list[Span] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def wait_for(self, enough: Callable[[list[Span]], bool], timeout_s: float = 15.0) -> list[Span]:
        """Wait for spans; fail with what there is when they never come."""
        assert wait_until(lambda: enough(list(self.spans)), timeout_s), f"these spans came: {self.spans}"
        return list(self.spans)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            collector.spans += _spans(body, self.headers["Content-Type"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(body: bytes, content_type: str) -> list[Span]:
    message = ExportTraceServiceRequest()
    if "json" in content_type:
        # Ids are hexadecimal in OTLP's JSON, and base64 in that of protobuf.
        as_base64 = re.sub(
            rb'(?<=Id":")[0-9a-f]+(?=")',
            lambda hexadecimal: b64encode(bytes.fromhex(hexadecimal[0].decode())),
            body,
        )
        json_format.Parse(as_base64, message, ignore_unknown_fields=True)
    else:
        message.ParseFromString(body)
    return [
        _span(span, _attributes(resource.resource.attributes).get("service.name", ""))
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(span: Any, service: str) -> Span:
    return Span(
        service,
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _attributes(span.attributes),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}

"""Traces: one from the client through the gateway to Triton, also where requests share a call."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from gateway.composition import build_app
from gateway.settings import ConfigurationError, load_settings
from tests.support.fake_triton import SST2, FakeTriton, fail, hold, read_texts
from tests.support.harness import (
    ACCOUNT,
    RUN,
    Client,
    access_lines,
    running_gateway,
    settings_for,
    until,
    until_in_flight,
)
from tests.support.otlp import Collector, Span, collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
ROUTE = "/client/v4/accounts/{account_id}/ai/run/{model}"
SERVER, CLIENT = 2, 3


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as found:
        yield found


@asynccontextmanager
async def traced(triton: FakeTriton, collector: Collector, **settings: Any) -> AsyncIterator[Client]:
    """A gateway that sends its last spans when the block ends."""
    given = {"otlp_endpoint": collector.endpoint, "trace_share": 0.0} | settings
    async with running_gateway(settings_for(triton, **given)) as running:
        yield running.client


def asking(client: Client, number: int = 0, *, flags: str = "01") -> Client:
    """A client whose requests belong to a trace, another for each ``number``."""
    trace = f"{int(TRACE, 16) + number:032x}"
    headers = {"traceparent": f"00-{trace}-{PARENT}-{flags}", "tracestate": "vendor=1"}
    return replace(client, headers=client.headers | headers)


def only(spans: list[Span], kind: int) -> Span:
    (found,) = [span for span in spans if span.kind == kind]
    return found


def contexts(triton: FakeTriton) -> list[str | None]:
    """The trace context of each inference call and canary."""
    return [metadata.get("traceparent") for metadata in triton.metadata]


async def test_the_clients_trace_goes_through_the_gateway_to_triton(
    triton: FakeTriton, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    async with traced(triton, collector) as client:
        answer = await asking(client).run({"text": "a private text"})
    request, call = only(collector.of(TRACE), SERVER), only(collector.of(TRACE), CLIENT)
    assert (request.service, request.name, request.parent) == ("tritonflare-gateway", f"POST {ROUTE}", PARENT)
    assert request.attributes.pop("tritonflare.triton_ms") > 0
    assert request.attributes.pop("tritonflare.queue_ms") >= 0
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "tritonflare.code": 0,
        "tritonflare.model": SST2,
        "tritonflare.ray": answer.header("cf-ray"),
        "tritonflare.request_id": answer.header("cf-ai-req-id"),
    }
    assert (call.name, call.parent, call.links) == ("ModelInfer", request.id, frozenset())
    assert call.attributes == {"rpc.system": "grpc", "tritonflare.model": SST2, "tritonflare.texts": 1}
    assert request.start_ns <= call.start_ns <= call.end_ns <= request.end_ns
    assert [context for context in contexts(triton) if context] == [f"00-{TRACE}-{call.id}-01"]
    assert {metadata.get("tracestate") for metadata in triton.metadata} == {None, "vendor=1"}
    assert "private" not in str(collector.spans)
    assert len(await access_lines(capsys)) == 1


async def test_requests_that_share_a_call_are_linked_with_it_in_both_directions(
    triton: FakeTriton, collector: Collector
) -> None:
    async with traced(triton, collector, call_slots=1, refresh_interval_s=60, canary_max_age_s=90) as client:
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        asked = [asyncio.create_task(asking(client, 9).run({"text": "occupies the slot"}))]

        async def occupied() -> bool:
            return triton.running == 1

        await until(occupied)
        for number in range(3):
            asked.append(asyncio.create_task(asking(client, number).run({"text": f"text {number}"})))
            await until_in_flight(client, len(asked))
        asked.append(asyncio.create_task(client.run({"text": "nobody traces this one"})))
        await until_in_flight(client, len(asked))
        release.set()
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    assert [len(read_texts(request)) for request in triton.requests if request.inputs[0].shape[0] > 1] == [4]
    requests = [only(collector.of(f"{int(TRACE, 16) + number:032x}"), SERVER) for number in range(3)]
    call = only(collector.of(TRACE), CLIENT)
    assert call.parent == requests[0].id
    assert call.attributes["tritonflare.texts"] == 4
    assert call.links == {(request.trace, request.id) for request in requests[1:]}
    assert [request.links for request in requests] == [set(), {(TRACE, call.id)}, {(TRACE, call.id)}]
    # Each call goes with its own context, although one is sent from the task of another.
    assert len({context for context in contexts(triton) if context}) == 2


async def test_texts_of_one_batch_are_one_parent_and_no_link(
    triton: FakeTriton, collector: Collector
) -> None:
    async with traced(triton, collector, call_slots=1) as client:
        await asking(client).run({"requests": [{"text": "one"}, {"text": "two"}]})
    call = only(collector.of(TRACE), CLIENT)
    assert (call.attributes["tritonflare.texts"], call.links) == (2, frozenset())


async def test_an_unsampled_request_is_not_traced_by_gateway_or_triton(
    triton: FakeTriton, collector: Collector
) -> None:
    """Triton would trace it: it does not look at the flags."""
    async with traced(triton, collector, trace_share=1.0) as client:
        assert (await asking(client, flags="00").run({"text": "a"})).status == 200
    assert collector.spans == []
    assert set(contexts(triton)) == {None}


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_without_a_context_the_share_decides(
    triton: FakeTriton, collector: Collector, share: float
) -> None:
    async with traced(triton, collector, trace_share=share) as client:
        for _ in range(3):
            await client.run({"text": "a"})
        await client.get("/readyz")
        await client.get("/nowhere")
    traces = {span.trace for span in collector.spans}
    assert len(traces) == 3 * share
    assert all(len(collector.of(trace)) == 2 for trace in traces)


@pytest.mark.parametrize("value", ["", "00-x-y-01", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01"])
async def test_a_malformed_context_is_none(triton: FakeTriton, collector: Collector, value: str) -> None:
    async with traced(triton, collector) as client:
        client.headers["traceparent"] = value
        assert (await client.run({"text": "a"})).status == 200
    assert collector.spans == []


async def test_a_connection_that_is_kept_does_not_hand_its_trace_on(
    triton: FakeTriton, collector: Collector
) -> None:
    async with traced(triton, collector) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        for context in (f"traceparent: 00-{TRACE}-{PARENT}-01\r\n", ""):
            head = f"POST {RUN} HTTP/1.1\r\nHost: g\r\nAuthorization: {client.headers['Authorization']}\r\n"
            writer.write(f'{head}{context}Content-Length: 12\r\n\r\n{{"text":"a"}}'.encode())
            await reader.readuntil(b'"messages":[]}')
        writer.close()
        await writer.wait_closed()
    assert len(triton.texts) == 2
    assert len(collector.spans) == 2
    assert len([context for context in contexts(triton) if context]) == 1


async def test_failures_mark_the_spans(triton: FakeTriton, collector: Collector) -> None:
    async with traced(triton, collector) as client:
        triton.infer_fault = fail(grpc.StatusCode.INTERNAL, "private words of Triton")
        await asking(client).run({"text": "a"})
        triton.infer_fault = None
        await asking(client, 1).run({"text": ""})
        path = f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/no/such"
        await asking(client, 2).run({"text": "a"}, path=path)
    request, call = only(collector.of(TRACE), SERVER), only(collector.of(TRACE), CLIENT)
    assert (request.failed, request.attributes["tritonflare.code"]) == (True, 8007)
    assert call.failed
    others = [span for span in collector.spans if span.trace != TRACE]
    assert [(span.failed, span.attributes["tritonflare.code"]) for span in others] == [
        (False, 5006),
        (False, 5007),
    ]
    assert "private" not in str(collector.spans)


async def test_a_collector_that_is_away_costs_no_request_and_no_time_at_the_end(
    triton: FakeTriton, collector: Collector
) -> None:
    settings = settings_for(triton, otlp_endpoint="http://127.0.0.1:9/v1/traces", trace_share=1.0)
    loop = asyncio.get_running_loop()
    async with running_gateway(settings) as running:
        assert (await running.client.run({"text": "a"})).status == 200
        stopping = loop.time()
    assert loop.time() - stopping < 6


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    program = (
        "import sys; from gateway.composition import build_app; from gateway.settings import load_settings; "
        "build_app(load_settings(api_tokens='*:long-enough-a-token')); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_the_extra_the_gateway_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.telemetry.tracing", None)
    settings = load_settings(api_tokens="*:token", otlp_endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[otel\]'"):
        build_app(settings)

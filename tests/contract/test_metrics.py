"""What a running gateway exports is what docs/observability.md says, and what is asked of it exists."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

from tests.support.fake_triton import SST2, FakeEnsemble, FakeTriton, fail
from tests.support.harness import Client, Running, running_gateway, settings_for, until
from tests.support.monitoring import (
    DOCUMENT,
    DOCUMENTED_GPU,
    OPTIONAL,
    PROMETHEUS,
    Family,
    Page,
    expressions,
    names_in,
    read_page,
    recorded,
    wrong_in,
)

_ROW = re.compile(r"^\| `(tritonflare_\w+|process_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


async def page_of(triton: FakeTriton) -> Page:
    """The metrics of a gateway that has seen some of everything."""
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_for(
            triton, cache_bytes=100_000, grpc_port=0, batch_folder=folder, shadow=f"{SST2}=second:1,x=y:1"
        )
        async with running_gateway(settings) as running:
            return await _page(running, triton)


async def _page(running: Running, triton: FakeTriton) -> Page:
    client: Client = running.client
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        live: Callable[..., Awaitable[bytes]] = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive"
        )
        await live(b"")
    triton.ensembles.append(FakeEnsemble("second", "second"))

    async def both() -> bool:
        return (await client.get("/v2/models/second/ready")).status == 200

    await until(both)
    await client.run({"text": "word " * 600})

    async def compared() -> bool:
        return b"\ntritonflare_shadow_texts_total{" in (await client.get("/metrics")).body

    await until(compared)
    await client.run({"requests": [{"text": "a"}] * 70})  # more than wait for the second model
    triton.infer_fault = fail(grpc.StatusCode.INTERNAL)
    await client.run({"text": "fails"})
    return read_page((await client.get("/metrics")).body.decode())


def documented(section: str) -> dict[str, Family]:
    """The rows of the tables below a heading."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return {
        name: Family(kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in _ROW.findall(text)
    }


async def test_the_documented_metrics_are_those_that_are_exported(triton: FakeTriton) -> None:
    page = await page_of(triton)
    described = documented("Metrics of the gateway")
    for name in OPTIONAL:
        assert described.pop(name)
    assert described == page.families


async def test_names_end_as_their_kinds_and_units_want(triton: FakeTriton) -> None:
    for name, family in (await page_of(triton)).families.items():
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert "milli" not in name
        if "duration" in name:
            assert name.endswith("_seconds"), name


async def test_queries_ask_the_gateway_for_what_it_exports(triton: FakeTriton) -> None:
    known = (await page_of(triton)).samples | recorded() | OPTIONAL | DOCUMENTED_GPU | PROMETHEUS
    asked = 0
    for place, query in expressions():
        if any(name.startswith("nv_inference") or "_encoder_" in name for name in names_in(query)):
            continue  # tests/triton/test_monitoring.py asks Triton
        if any(name.startswith(("nv_cpu", "nv_pinned")) for name in names_in(query)):
            continue
        assert wrong_in(query, known) == [], place
        asked += 1
    assert asked > 40


async def test_the_gauges_of_load_follow_it_and_return_to_nothing(client: Client) -> None:
    await client.run({"text": "a"})
    assert await client.metric("tritonflare_queued_texts") == 0
    assert await client.metric("tritonflare_requests_in_flight_limit") == 512
    assert await client.metric("tritonflare_connections") == 1  # the one that asks
    assert await client.metric(f'tritonflare_build_info{{version="{version("tritonflare")}"}}') == 1
    assert await client.metric("process_resident_memory_bytes") > 1_000_000


async def test_tokens_of_texts_are_sorted_into_buckets(client: Client, triton: FakeTriton) -> None:
    model = triton.ensembles[0].public_name
    for words in (1, 20, 600):
        await client.run({"text": "word " * words})
    bucket = 'tritonflare_text_tokens_bucket{le="%s",model="' + str(model) + '"}'
    assert [await client.metric(bucket % le) for le in ("8.0", "32.0", "512.0", "+Inf")] == [1, 2, 3, 3]
    total = f'tritonflare_tokens_total{{model="{model}"}}'
    assert await client.metric(f'tritonflare_text_tokens_sum{{model="{model}"}}') == await client.metric(
        total
    )


@pytest.mark.parametrize("file", ["README.md", "ARCHITECTURE.md"])
def test_metrics_named_in_other_documents_exist(file: str) -> None:
    text = (Path(DOCUMENT).parents[1] / file).read_text(encoding="utf-8")
    known = documented("Metrics of the gateway")
    assert {name for name in re.findall(r"tritonflare_\w+_total", text)} <= set(known)

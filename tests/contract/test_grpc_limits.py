"""What gRPC shares with HTTP: tokens, rate, admission, cache, coalescing; deadlines and cancellations."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.access.tokens import hash_token
from tests.support.fake_triton import FakeTriton, hold, read_texts
from tests.support.grpc_calls import (
    AUTHORIZED,
    Stubs,
    code,
    failure,
    grpc_stubs,
    infer_request,
    outputs_of,
    retry_delay_s,
)
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    TOKEN,
    Client,
    running_gateway,
    settings_for,
    until,
    until_in_flight,
)

CODE = grpc.StatusCode
OTHER = "f" * 32
IN_FLIGHT = "tritonflare_requests_in_flight"


def infer(stubs: Stubs, *metadata: tuple[str, str]) -> Any:
    return stubs.inference.ModelInfer(infer_request("a"), metadata=metadata, timeout=5)


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


async def idle(client: Client, triton: FakeTriton) -> None:
    """Wait until no request and no call is under way."""

    async def nothing() -> bool:
        return not await client.metric(IN_FLIGHT) and not await client.metric("tritonflare_queued_texts")

    await until(nothing)
    assert triton.cancelled == 0


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([], CODE.UNAUTHENTICATED),
        ([("authorization", TOKEN)], CODE.UNAUTHENTICATED),
        ([("authorization", f"Basic {TOKEN}")], CODE.UNAUTHENTICATED),
        ([bearer("")], CODE.UNAUTHENTICATED),
        ([bearer("unknown-token-of-nobody")], CODE.UNAUTHENTICATED),
        ([bearer(TOKEN), bearer(TOKEN)], CODE.UNAUTHENTICATED),
        ([bearer(TOKEN), ("cf-account-id", OTHER)], CODE.PERMISSION_DENIED),
    ],
)
async def test_wrong_tokens_are_refused(
    triton: FakeTriton, metadata: list[tuple[str, str]], expected: grpc.StatusCode
) -> None:
    async with (
        running_gateway(settings_for(triton, grpc_port=0)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        error = await failure(infer(stubs, *metadata))
        assert error.code() is expected
        assert TOKEN not in (error.details() or "")
    assert triton.texts == []


@pytest.mark.parametrize(
    "metadata",
    [
        [bearer(TOKEN)],
        [("authorization", f"bearer  {TOKEN}")],
        [bearer(TOKEN), ("cf-account-id", ACCOUNT)],
        [bearer(ANY_TOKEN)],
        [bearer(ANY_TOKEN), ("cf-account-id", OTHER)],
    ],
)
async def test_right_tokens_are_accepted(triton: FakeTriton, metadata: list[tuple[str, str]]) -> None:
    async with (
        running_gateway(settings_for(triton, grpc_port=0)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        assert (await infer(stubs, *metadata)).outputs


async def test_a_token_that_is_revoked_ends_the_requests_of_an_open_stream(
    triton: FakeTriton, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{ACCOUNT}:{hash_token(TOKEN)}\n")
    settings = settings_for(triton, grpc_port=0, api_tokens=None, tokens_file=tokens)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        stream = stubs.inference.ModelStreamInfer(metadata=AUTHORIZED)
        await stream.write(infer_request("a"))
        assert (await stream.read()).error_message == ""
        tokens.write_text(f"{ACCOUNT}:{hash_token('another-token')}\n")

        async def refused() -> bool:
            await stream.write(infer_request("a"))
            return bool((await stream.read()).error_message)

        await until(refused, 20)
        assert await code(stubs.infer("a")) is CODE.UNAUTHENTICATED
        await stream.done_writing()


async def test_both_protocols_count_one_rate(triton: FakeTriton) -> None:
    settings = settings_for(triton, grpc_port=0, requests_per_minute=4, max_batch_texts=4)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        assert (await running.client.run({"text": "a"})).status == 200
        await stubs.infer("a", "b")
        assert (await running.client.run({"text": "a"})).status == 200
        error = await failure(stubs.infer("a"))
        assert error.code() is CODE.RESOURCE_EXHAUSTED
        delay_s = retry_delay_s(error)
        assert delay_s is not None
        assert 0 < delay_s <= 60
        assert dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"] == str(int(delay_s * 1000))
        assert (await running.client.run({"text": "a"})).status == 429
        assert (await infer(stubs, bearer(ANY_TOKEN), ("cf-account-id", OTHER))).outputs


async def test_both_protocols_share_the_places_in_flight(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    settings = settings_for(triton, grpc_port=0, max_requests_in_flight=3, max_batch_texts=3)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        by_grpc = asyncio.create_task(stubs.infer("a", "b"))
        await until_in_flight(running.client, 2)
        too_many = await failure(stubs.infer("c", "d"))
        by_http = asyncio.create_task(running.client.run({"text": "e"}))
        await until_in_flight(running.client, 3)
        refused = await failure(stubs.infer("f"))
        for error in (too_many, refused):
            assert error.code() is CODE.RESOURCE_EXHAUSTED
            assert retry_delay_s(error) == 0.5
        assert (await running.client.run({"text": "f"})).status == 429
        release.set()
        assert (await by_http).status == 200
        assert len(outputs_of(await by_grpc)["label"]) == 2
        await idle(running.client, triton)


async def test_both_protocols_share_the_cache(triton: FakeTriton) -> None:
    async with (
        running_gateway(settings_for(triton, grpc_port=0, cache_bytes=1_000_000)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        assert (await running.client.run({"text": "same"})).status == 200
        first = outputs_of(await stubs.infer("same", "new"))
        assert (await running.client.run({"text": "new"})).status == 200
        assert sorted(triton.texts) == [b"new", b"same"]
        assert first == outputs_of(await stubs.infer("same", "new"))


async def test_texts_of_both_protocols_share_calls(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    settings = settings_for(triton, grpc_port=0, call_slots=1)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        first = asyncio.create_task(stubs.infer("first"))
        await until_in_flight(running.client, 1)
        rest = [asyncio.create_task(stubs.infer("a")), asyncio.create_task(running.client.run({"text": "b"}))]
        await until_in_flight(running.client, 3)
        release.set()
        await asyncio.gather(first, *rest)
    assert [b"a", b"b"] in [sorted(read_texts(request)) for request in triton.requests]


async def test_the_deadline_of_a_client_drops_what_was_not_sent(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    settings = settings_for(triton, grpc_port=0, call_slots=1)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        sent = asyncio.create_task(stubs.infer("sent"))
        await until_in_flight(running.client, 1)
        queued = asyncio.create_task(code(stubs.infer("queued", timeout_s=0.3)))
        assert await queued is CODE.DEADLINE_EXCEEDED
        release.set()
        await sent
        await idle(running.client, triton)
    assert triton.texts == [b"sent"]
    assert not [pairs for pairs in triton.metadata if "grpc-timeout" in pairs]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_cancels_leaves_what_was_sent_to_finish(
    triton: FakeTriton, streamed: bool
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    settings = settings_for(triton, grpc_port=0, call_slots=1)
    async with running_gateway(settings) as running, AsyncExitStack() as stack:
        stubs = await stack.enter_async_context(grpc_stubs(running.grpc_port))

        async def start(text: str) -> Any:
            if not streamed:
                return stubs.inference.ModelInfer(infer_request(text), metadata=AUTHORIZED)
            stream = stubs.inference.ModelStreamInfer(metadata=AUTHORIZED)
            await stream.write(infer_request(text))
            return stream

        sent = await start("sent")
        await until_in_flight(running.client, 1)

        async def arrived() -> bool:
            return triton.running == 1

        await until(arrived)
        queued = await start("queued")
        await until_in_flight(running.client, 2)
        queued.cancel()
        sent.cancel()
        await idle(running.client, triton)
        assert triton.running == 1
        release.set()
        await stubs.infer("after")
        await idle(running.client, triton)
        sample = 'tritonflare_grpc_requests_total{method="%s",status="CANCELLED"}'
        method = "ModelStreamInfer" if streamed else "ModelInfer"
        assert await running.client.metric(sample % method) == 2
    assert triton.texts == [b"sent", b"after"]


async def test_the_gateway_has_a_deadline_of_its_own(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    settings = settings_for(triton, grpc_port=0, request_timeout_s=0.5)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        error = await failure(stubs.infer("a"))
        assert (error.code(), error.details()) == (CODE.DEADLINE_EXCEEDED, "Request timeout")
        release.set()
        await idle(running.client, triton)


async def test_clients_that_vanish_give_their_places_back(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(settings_for(triton, grpc_port=0)) as running:
        async with grpc_stubs(running.grpc_port) as stubs:
            tasks = [asyncio.create_task(stubs.infer(f"text {number}")) for number in range(20)]
            await until_in_flight(running.client, 20)
        await asyncio.gather(*tasks, return_exceptions=True)
        await idle(running.client, triton)
        release.set()
        await idle(running.client, triton)

"""The answer cache from outside: its header, its metrics, and that a reload empties it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import grpc

from tests.support.fake_triton import SST2, FakeTriton, fail, hold
from tests.support.harness import ACCOUNT, Answer, Client, running_gateway, settings_for, until

PIZZA = {"text": "This pizza is great!"}
CACHE_BYTES = 1_000_000
BINDING = {"cf-consn-model-id": SST2, "cf-consn-sdk-version": "2.0.0"}


def status(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.header("cf-aig-cache-status")


async def test_it_is_off_by_default(client: Client, triton: FakeTriton) -> None:
    for _ in range(2):
        assert status(await client.run(PIZZA)) is None
    assert len(triton.texts) == 2
    assert b"tritonflare_cache" not in (await client.get("/metrics")).body


async def test_a_text_that_comes_again_is_answered_alike_without_triton(triton: FakeTriton) -> None:
    triton.answer_logits(-1.2345678, 2.3456789)
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        first, again = [await running.client.run(PIZZA) for _ in range(2)]
        assert (status(first), status(again)) == ("MISS", "HIT")
        assert again.body == first.body
        assert again.header("cf-ai-neurons") == first.header("cf-ai-neurons")
        assert again.header("cf-ai-req-id") != first.header("cf-ai-req-id")
        assert len(triton.texts) == 1
        cut = [await running.client.run({"text": "word " * 600}) for _ in range(2)]
        assert [answer.header("x-truncated") for answer in cut] == ["true", "true"]


async def test_the_binding_and_the_api_share_it(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        client = running.client
        assert status(await client.run(PIZZA)) == "MISS"
        headers = client.headers | BINDING
        body = b'{"inputs":{"text":"This pizza is great!"},"options":{}}'
        answer = await client.send("POST", "/run?version=3", body, headers)
        assert status(answer) == "HIT"
        path = f"/client/v4/accounts/{ACCOUNT}/ai/run"
        assert status(await client.run({"model": SST2, "input": PIZZA}, path=path)) == "HIT"
    assert len(triton.texts) == 1


async def test_a_batch_is_a_hit_if_all_of_it_was_kept(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        client = running.client
        await client.run({"text": "a"})
        both = {"requests": [{"text": "a"}, {"text": "b"}]}
        first, again = [await client.run(both) for _ in range(2)]
        assert (status(first), status(again)) == ("MISS", "HIT")
        assert first.body == again.body
        assert status(await client.run({"requests": [{"text": "a"}, {"text": ""}]})) == "MISS"
        assert status(await client.run({"requests": [{"text": ""}]})) is None
    assert sorted(triton.texts) == [b"a", b"b"]


async def test_a_reload_empties_it(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        client = running.client
        before = await client.run(PIZZA)
        assert await client.metric("tritonflare_cache_entries") == 1
        assert await client.metric("tritonflare_cache_bytes") > 0
        triton.ensembles[0] = replace(
            triton.ensembles[0], logits=(3.0, -3.0), overrides={"tritonflare.model_sha256": "another"}
        )

        async def emptied() -> bool:
            return await client.metric("tritonflare_cache_entries") == 0

        await until(emptied)
        assert await client.metric("tritonflare_cache_bytes") == 0
        after = await client.run(PIZZA)
        assert status(after) == "MISS"
        assert after.body != before.body


async def test_an_error_is_not_kept_and_has_no_cache_header(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        triton.infer_fault = fail(grpc.StatusCode.INTERNAL)
        failed = await running.client.run(PIZZA)
        assert (failed.status, failed.header("cf-aig-cache-status")) == (500, None)
        triton.infer_fault = None
        assert status(await running.client.run(PIZZA)) == "MISS"


async def test_what_is_kept_is_answered_while_triton_is_away(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        await running.client.run(PIZZA)
        await triton.disappear()
        assert status(await running.client.run(PIZZA)) == "HIT"
        assert (await running.client.run({"text": "another"})).status == 503


async def test_texts_that_are_alike_and_in_flight_reach_triton_once(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        client = running.client
        asking = [asyncio.create_task(client.run(PIZZA)) for _ in range(5)]
        shared = 'tritonflare_cache_lookups_total{result="shared"}'

        async def all_wait() -> bool:
            return await client.metric(shared) == 4

        await until(all_wait)
        release.set()
        answers = await asyncio.gather(*asking)
        assert [status(answer) for answer in answers] == ["MISS"] * 5
        assert status(await client.run(PIZZA)) == "HIT"
        assert await client.metric('tritonflare_cache_lookups_total{result="miss"}') == 1
        assert await client.metric('tritonflare_cache_lookups_total{result="hit"}') == 1
    assert len(triton.texts) == 1


async def test_when_the_first_caller_hangs_up_the_others_get_their_answer(triton: FakeTriton) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with running_gateway(settings_for(triton, cache_bytes=CACHE_BYTES)) as running:
        client = running.client
        first = asyncio.create_task(client.run(PIZZA))

        async def asked(times: int) -> bool:
            return len(triton.texts) == times

        await until(lambda: asked(1))
        others = [asyncio.create_task(client.run(PIZZA)) for _ in range(3)]

        async def all_wait() -> bool:
            return await client.metric('tritonflare_cache_lookups_total{result="shared"}') == 3

        await until(all_wait)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        await until(lambda: asked(2))
        release.set()
        answers = await asyncio.gather(*others)
        assert [status(answer) for answer in answers] == ["MISS"] * 3


async def test_what_makes_room_is_counted(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=1000)) as running:
        for number in range(10):
            await running.client.run({"text": str(number)})
        entries = await running.client.metric("tritonflare_cache_entries")
        assert await running.client.metric("tritonflare_cache_evictions_total") == 10 - entries
        assert 0 < await running.client.metric("tritonflare_cache_bytes") <= 1000

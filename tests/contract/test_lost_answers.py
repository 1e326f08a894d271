"""A Triton, or something on the way to it, that keeps its connections and loses answers."""

from __future__ import annotations

import asyncio

from tests.support.fake_triton import FakeTriton, hold
from tests.support.harness import Client, running_gateway, settings_for, until


async def readiness(client: Client) -> int:
    return (await client.get("/readyz")).status


async def test_lost_answers_block_no_text_after_their_deadline(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, request_timeout_s=0.5, call_slots=3)) as running:
        client = running.client
        triton.infer_fault = hold(asyncio.Event())
        lost = [asyncio.create_task(client.run({"text": f"lost {number}"})) for number in range(3)]

        async def all_sent() -> bool:
            return len(triton.texts) == 3

        await until(all_sent)
        triton.infer_fault = None
        assert [answer.status for answer in await asyncio.gather(*lost)] == [408] * 3

        async def answered() -> bool:
            return (await client.run({"text": "next"})).status == 200

        await until(answered, 5)
        overdue = await client.metric("tritonflare_calls_overdue")
        assert 0 < overdue == await client.metric("tritonflare_calls_in_flight")
        assert triton.cancelled == 0


async def test_while_texts_are_lost_calls_are_bounded_and_the_gateway_is_not_ready(
    triton: FakeTriton,
) -> None:
    settings = settings_for(triton, request_timeout_s=0.1, call_slots=1, canary_timeout_s=0.1)
    async with running_gateway(settings) as running:
        client, release = running.client, asyncio.Event()
        triton.infer_fault = hold(release)  # which lets canaries pass, if any comes by itself
        seen: set[int] = set()

        async def not_ready() -> bool:
            seen.add((await client.run({"text": "lost"})).status)
            return await readiness(client) == 503

        # GATEWAY_CANARY_MAX_AGE_S, which is 2, after the first canary that goes unanswered.
        await until(not_ready, 8)
        assert seen == {408, 429}
        assert triton.running <= 4

        async def ready() -> bool:
            return await readiness(client) == 200

        release.set()
        await until(ready, 5)
        assert (await client.run({"text": "next"})).status == 200
        assert await client.metric("tritonflare_calls_overdue") == 0

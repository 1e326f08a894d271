"""``server-timing``: where the time of a run went."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import grpc

from tests.support.fake_triton import FakeTriton, fail, hold
from tests.support.harness import ACCOUNT, Answer, Client, running_gateway, settings_for, until_in_flight

OVERDUE_TIMEOUT_S = 0.2


def milliseconds(answer: Answer) -> dict[str, float]:
    """The parts of the header, by name and in order."""
    value = answer.header("server-timing")
    assert value is not None
    assert re.fullmatch(r"[a-z]+;dur=\d+\.\d(, [a-z]+;dur=\d+\.\d)*", value), value
    return {name: float(duration) for name, duration in re.findall(r"([a-z]+);dur=([\d.]+)", value)}


async def held(client: Client, triton: FakeTriton, *payloads: object) -> list[dict[str, float]]:
    """Ask one after the other, let Triton answer the first after some time and the rest after twice that."""
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    asked = []
    for payload in payloads:
        asked.append(asyncio.create_task(client.run(payload)))
        await until_in_flight(client, len(asked))
    await asyncio.sleep(OVERDUE_TIMEOUT_S)
    release.set()
    return [milliseconds(answer) for answer in await asyncio.gather(*asked)]


async def test_the_time_in_triton_and_the_wait_for_a_slot_are_separate(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, call_slots=1)) as running:
        first, second = await held(running.client, triton, {"text": "first"}, {"text": "second"})
    assert list(first) == ["queue", "triton", "total"]
    assert first["queue"] < 50
    assert first["triton"] >= 1000 * OVERDUE_TIMEOUT_S
    assert second["queue"] >= 1000 * OVERDUE_TIMEOUT_S
    for timing in (first, second):
        assert timing["total"] >= timing["queue"] + timing["triton"] - 0.2  # each is rounded


async def test_a_batch_reports_the_longest_wait_and_the_longest_call(triton: FakeTriton) -> None:
    # Too unlike in length to travel together: one waits while the other is in Triton.
    batch = {"requests": [{"text": "short"}, {"text": "long " * 300}]}
    async with running_gateway(settings_for(triton, call_slots=1)) as running:
        (timing,) = await held(running.client, triton, batch)
    assert timing["queue"] >= 1000 * OVERDUE_TIMEOUT_S
    assert timing["triton"] >= 1000 * OVERDUE_TIMEOUT_S
    assert timing["total"] < timing["queue"] + timing["triton"]


async def test_an_answer_out_of_the_cache_or_shared_with_another_request_has_the_total_alone(
    triton: FakeTriton,
) -> None:
    async with running_gateway(settings_for(triton, cache_bytes=1_000_000)) as running:
        client = running.client
        asked, shared = await held(client, triton, {"text": "same"}, {"text": "same"})
        kept = milliseconds(await client.run({"text": "same"}))
        batch = milliseconds(await client.run({"requests": [{"text": "same"}]}))
    assert list(asked) == ["queue", "triton", "total"]
    assert list(shared) == list(kept) == list(batch) == ["total"]
    assert len(triton.texts) == 1


async def test_only_a_run_that_succeeded_has_it(client: Client, triton: FakeTriton) -> None:
    others = [
        await client.run({"text": ""}),
        await client.get(f"/client/v4/accounts/{ACCOUNT}/ai/models/search"),
        await client.get("/readyz"),
    ]
    triton.infer_fault = fail(grpc.StatusCode.INTERNAL)
    others.append(await client.run({"text": "a"}))
    assert [answer.status for answer in others] == [400, 200, 200, 500]
    assert all(answer.header("server-timing") is None for answer in others)


async def test_a_call_that_was_repeated_counts_in_full(triton: FakeTriton) -> None:
    fault = fail(grpc.StatusCode.INTERNAL)

    async def fails_in_company(request: Any, context: Any) -> None:
        if request.inputs[0].shape[0] > 1:
            await asyncio.sleep(OVERDUE_TIMEOUT_S)
            await fault(request, context)

    triton.infer_fault = fails_in_company
    async with running_gateway(settings_for(triton, call_slots=1)) as running:
        answer = await running.client.run({"requests": [{"text": "one"}, {"text": "two"}]})
    assert answer.status == 200
    assert milliseconds(answer)["triton"] >= 1000 * OVERDUE_TIMEOUT_S

"""Several Tritons: they take turns, and what one cannot take goes to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.support.fake_triton import FakeTriton, fail, read_texts
from tests.support.harness import Client, running_gateway, settings_for, until

GOOD = {"text": "a"}


@pytest.fixture
async def pair() -> AsyncIterator[tuple[FakeTriton, FakeTriton]]:
    first, second = FakeTriton(), FakeTriton()
    for triton in (first, second):
        await triton.appear()
    yield first, second
    for triton in (first, second):
        await triton.disappear()


@pytest.fixture
async def balanced(pair: tuple[FakeTriton, FakeTriton]) -> AsyncIterator[Client]:
    first, second = pair
    async with running_gateway(settings_for(first, triton_url=f"ipv4:{first.url},{second.url}")) as gateway:
        yield gateway.client


async def statuses(client: Client, count: int) -> set[int]:
    return {(await client.run(GOOD)).status for _ in range(count)}


async def test_they_take_turns(balanced: Client, pair: tuple[FakeTriton, FakeTriton]) -> None:
    # The first calls may all meet the one whose connection stood earlier.
    async def both() -> bool:
        return await statuses(balanced, 2) == {200} and all(len(triton.texts) >= 10 for triton in pair)

    await until(both)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND])
async def test_what_one_refuses_the_other_answers(
    balanced: Client, pair: tuple[FakeTriton, FakeTriton], code: grpc.StatusCode
) -> None:
    first, second = pair
    first.infer_fault = fail(code)
    for _ in range(20):
        assert await statuses(balanced, 1) == {200}
        assert (await balanced.get("/readyz")).status == 200
    assert len(second.texts) == 20


async def test_a_connection_that_breaks_under_a_call_costs_nothing(
    balanced: Client, pair: tuple[FakeTriton, FakeTriton]
) -> None:
    reached = asyncio.Event()

    async def hang(request: Any, context: Any) -> None:
        if read_texts(request) == [b"a"]:
            reached.set()
            await asyncio.sleep(10)

    for triton in pair:
        triton.infer_fault = hang
    asking = asyncio.create_task(balanced.run(GOOD))
    await reached.wait()
    holder, other = sorted(pair, key=lambda triton: len(triton.texts), reverse=True)
    other.infer_fault = None
    await holder.disappear()
    assert (await asking).status == 200
    assert other.texts == [b"a"]


async def test_an_error_of_the_model_is_not_sent_again(
    balanced: Client, pair: tuple[FakeTriton, FakeTriton]
) -> None:
    for triton in pair:
        triton.infer_fault = fail(grpc.StatusCode.INTERNAL)
    assert (await balanced.run(GOOD)).status == 500
    assert sum(len(triton.texts) for triton in pair) == 1


async def test_one_that_stops_does_not_empty_the_catalogue(
    balanced: Client, pair: tuple[FakeTriton, FakeTriton]
) -> None:
    # As Triton 2.51 answers from SIGTERM to its end.
    stopping = pair[0]
    stopping.index_fault = fail(grpc.StatusCode.UNAVAILABLE, "Server not ready")
    stopping.config_fault = stopping.infer_fault = fail(grpc.StatusCode.NOT_FOUND)
    await asyncio.sleep(0.5)  # several looks at the models
    assert await statuses(balanced, 20) == {200}
    assert (await balanced.get("/readyz")).status == 200


async def test_calls_side_by_side_find_the_one_that_serves(
    balanced: Client, pair: tuple[FakeTriton, FakeTriton]
) -> None:
    pair[0].infer_fault = fail(grpc.StatusCode.NOT_FOUND)
    answers = await asyncio.gather(*(balanced.run(GOOD) for _ in range(100)))
    assert {answer.status for answer in answers} == {200}

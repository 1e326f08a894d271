"""Many connections, and callers who send or read slowly: others are served all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.contract.test_errors import check_ai
from tests.contract.test_protocol import BODY, answer, post
from tests.support.fake_triton import FakeTriton, hold
from tests.support.harness import RUN, Answer, Client, read_answer, running_gateway, settings_for, until

GOOD = {"text": "a"}
HALF = post()[: -len(BODY)] + BODY[:4]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[list[Stream]]:
    """Open connections, one after the other."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield streams
    finally:
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)


async def is_closed(stream: Stream) -> bool:
    try:
        return await asyncio.wait_for(stream[0].read(), 0.2) == b""
    except asyncio.TimeoutError:
        return False


async def test_the_longest_idle_connection_makes_room_for_a_new_one(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, max_connections=4)) as running:
        async with connected(running.client.port, 4) as streams:
            streams[0][1].write(post())  # so the second is the one that has been idle longest
            assert (await answer(streams[0][0]))[0].startswith(b"HTTP/1.1 200 ")
            assert (await running.client.run(GOOD)).status == 200
            assert [await is_closed(stream) for stream in streams] == [False, True, False, False]
        assert await running.client.metric("tritonflare_connections_made_room_total") >= 1
        assert await running.client.metric("tritonflare_connections_refused_total") == 0


async def test_a_head_that_comes_byte_by_byte_is_no_reason_to_refuse_others(triton: FakeTriton) -> None:
    async with (
        running_gateway(settings_for(triton, max_connections=3)) as running,
        connected(running.client.port, 3) as streams,
    ):
        for _, writer in streams:
            writer.write(b"POST /")
        await asyncio.sleep(0.1)
        for _ in range(3):
            assert (await running.client.run(GOOD)).status == 200


async def test_when_all_connections_are_busy_one_more_is_refused(triton: FakeTriton) -> None:
    release = asyncio.Event()
    async with running_gateway(settings_for(triton, max_connections=2)) as running:
        triton.infer_fault = hold(release)
        waiting = [asyncio.create_task(running.client.run(GOOD)) for _ in range(2)]

        async def both_wait() -> bool:
            return len(triton.texts) == 2

        await until(both_wait)
        refused = await running.client.run(GOOD)
        check_ai(refused, 429, 3040, "Capacity temporarily exceeded, please try again.")
        assert refused.header("connection") == "close"
        release.set()
        assert [found.status for found in await asyncio.gather(*waiting)] == [200, 200]
        assert (await running.client.run(GOOD)).status == 200
        assert await running.client.metric("tritonflare_connections_refused_total") == 1


async def test_connections_are_counted_and_counted_down(client: Client) -> None:
    async def others() -> float:
        return await client.metric("tritonflare_connections") - 1

    async with connected(client.port, 7):

        async def all_there() -> bool:
            return await others() == 7

        await until(all_there)

    async def none_left() -> bool:
        return await others() == 0

    await until(none_left)


async def half_sent(client: Client) -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(HALF)
    await asyncio.sleep(0.05)
    return reader, writer


async def ended(stream: Stream) -> Answer:
    """The answer on a connection of which the gateway knows that no more requests come."""
    stream[1].write_eof()
    try:
        return await asyncio.wait_for(read_answer(stream[0]), 3)
    finally:
        stream[1].close()


async def test_who_sends_a_body_slowly_takes_no_place_in_flight(triton: FakeTriton) -> None:
    settings = settings_for(triton, max_requests_in_flight=2, max_batch_texts=2)
    async with running_gateway(settings) as running:
        slow = [await half_sent(running.client) for _ in range(2)]
        assert await running.client.metric("tritonflare_requests_in_flight") == 0
        assert (await running.client.run({"requests": [GOOD, GOOD]})).status == 200
        for reader, writer in slow:
            writer.write(BODY[4:])
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_of_too_many_slow_bodies_the_oldest_is_given_up_and_a_quick_one_is_served(
    triton: FakeTriton,
) -> None:
    settings = settings_for(triton, max_requests_in_flight=2, max_batch_texts=2)
    async with running_gateway(settings) as running:
        first, second = [await half_sent(running.client) for _ in range(2)]
        third = await half_sent(running.client)
        head, _ = await answer(first[0])
        assert head.startswith(b"HTTP/1.1 408 ")
        assert (await running.client.run(GOOD)).status == 200
        for reader, writer in (second, third):
            writer.write(BODY[4:])
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 200 ")
        for _, writer in (first, second, third):
            writer.close()


async def test_a_client_that_disconnects_within_the_body_is_counted_as_499(client: Client) -> None:
    _, writer = await half_sent(client)
    writer.close()

    async def counted() -> bool:
        page = (await client.get("/metrics")).body.decode()
        return 'code="499"' in page

    await until(counted)
    assert await client.metric("tritonflare_requests_in_flight") == 0


@pytest.mark.parametrize("before", [b"", post()])
async def test_a_head_has_its_time_also_behind_an_answered_request(triton: FakeTriton, before: bytes) -> None:
    async with running_gateway(settings_for(triton, transfer_timeout_s=0.5)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
        if before:
            writer.write(before)
            await answer(reader)
        began = asyncio.get_running_loop().time()
        writer.write(f"POST {RUN}".encode())
        head, _ = await answer(reader)
        assert head.startswith(b"HTTP/1.1 408 ")
        assert 0.4 < asyncio.get_running_loop().time() - began < 3
        writer.close()

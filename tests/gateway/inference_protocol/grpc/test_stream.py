"""Streams: order, bounds and ends."""

from __future__ import annotations

import asyncio

import pytest

from gateway.inference_protocol.grpc.stream import MOST_PIPELINED, answer_stream


class Client:
    """One end of a stream."""

    def __init__(self, *messages: bytes) -> None:
        self.messages: asyncio.Queue[object] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)
        self.answers: list[object] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.draining = asyncio.Event()

    def begin_read(self) -> asyncio.Task[object]:
        return asyncio.create_task(self.messages.get())

    async def write(self, answer: object) -> None:
        await self.reading.wait()
        self.answers.append(answer)


async def test_answers_come_in_the_order_of_the_messages() -> None:
    client = Client(b"3", b"1", b"2", b"0")
    client.messages.put_nowait(None)

    async def answer(message: bytes) -> object:
        await asyncio.sleep(int(message) / 100)
        return message

    assert await answer_stream(client.begin_read, answer, client.write, client.draining)
    assert client.answers == [b"3", b"1", b"2", b"0"]


async def test_a_client_that_does_not_read_stops_the_reading_of_its_messages() -> None:
    client, asked = Client(*[b"a"] * 100), []
    client.reading.clear()

    async def answer(message: bytes) -> object:
        asked.append(message)
        return message

    task = asyncio.create_task(answer_stream(client.begin_read, answer, client.write, client.draining))
    await asyncio.sleep(0.05)
    assert len(asked) == MOST_PIPELINED
    client.reading.set()
    client.messages.put_nowait(None)
    assert await asyncio.wait_for(task, 5)
    assert len(client.answers) == 100


@pytest.mark.parametrize("reads", [True, False])
async def test_a_stream_that_is_cancelled_ends_with_all_its_requests(reads: bool) -> None:
    client, under_way = Client(*[b"a"] * 100), 0
    if not reads:
        client.reading.clear()

    async def answer(message: bytes) -> object:
        nonlocal under_way
        under_way += 1
        try:
            return await asyncio.sleep(0 if not reads else 60, message)
        finally:
            under_way -= 1

    task = asyncio.create_task(answer_stream(client.begin_read, answer, client.write, client.draining))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert under_way == 0


async def test_a_drain_answers_what_was_read() -> None:
    client = Client(b"a", b"b")

    async def answer(message: bytes) -> object:
        await asyncio.sleep(0.1)
        return message

    task = asyncio.create_task(answer_stream(client.begin_read, answer, client.write, client.draining))
    await asyncio.sleep(0.05)
    client.draining.set()
    assert not await asyncio.wait_for(task, 5)
    assert client.answers == [b"a", b"b"]


@pytest.mark.parametrize(("last", "ended"), [(None, True), (b"unanswered", False)])
async def test_a_client_that_ends_the_stream_after_its_last_answer_is_not_interrupted_by_a_drain(
    last: object, ended: bool
) -> None:
    client = Client(b"a")

    async def answer(message: bytes) -> object:
        await asyncio.sleep(0.1)
        return message

    task = asyncio.create_task(answer_stream(client.begin_read, answer, client.write, client.draining))
    await asyncio.sleep(0.05)
    client.draining.set()
    while not client.answers:
        await asyncio.sleep(0.01)
    client.messages.put_nowait(last)
    assert await asyncio.wait_for(task, 5) is ended
    assert client.answers == [b"a"]


async def test_the_end_of_a_stream_at_the_moment_of_a_drain_is_seen() -> None:
    client = Client()
    task = asyncio.create_task(
        answer_stream(client.begin_read, lambda _: asyncio.sleep(0), client.write, client.draining)
    )
    await asyncio.sleep(0.01)
    client.messages.put_nowait(None)
    client.draining.set()
    assert await asyncio.wait_for(task, 5)

"""The deadline of a request."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway.domain.errors import ClientDisconnected, DeadlineExceeded
from gateway.pipeline.deadline import RequestDeadline
from gateway.server.message import HttpRequest


async def test_time_up_ends_the_block_with_our_error() -> None:
    with pytest.raises(DeadlineExceeded), RequestDeadline(0.01):
        await asyncio.sleep(5)
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    with RequestDeadline(0.02) as deadline:
        assert 0 < deadline.remaining_s() <= 0.02
    await asyncio.sleep(0.05)


async def test_a_client_that_disconnects_ends_the_block() -> None:
    request = HttpRequest("POST", "/")

    async def work() -> None:
        with RequestDeadline(5) as deadline:
            deadline.watch_for_disconnect(request)
            asyncio.get_running_loop().call_later(0.01, request.disconnect)
            await asyncio.sleep(5)

    with pytest.raises(ClientDisconnected):
        await work()


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        with RequestDeadline(5):
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_disconnect_before_the_watch_ends_the_block_too() -> None:
    request = HttpRequest("POST", "/")
    request.disconnect()

    async def work() -> None:
        with RequestDeadline(5) as deadline:
            deadline.watch_for_disconnect(request)
            await asyncio.sleep(5)

    with pytest.raises(ClientDisconnected):
        await work()


async def test_the_watch_ends_with_the_block() -> None:
    request = HttpRequest("POST", "/")
    with RequestDeadline(5) as deadline:
        deadline.watch_for_disconnect(request)
    request.disconnect()
    await asyncio.sleep(0)  # where a cancellation would strike


async def test_an_error_of_the_block_is_not_hidden_by_the_interrupt() -> None:
    with pytest.raises(ValueError, match="mine"), RequestDeadline(5):
        raise ValueError("mine")


async def test_the_patience_that_is_set_last_counts_from_the_beginning() -> None:
    loop = asyncio.get_running_loop()

    async def work(first_s: float | None, *then_s: float | None) -> None:
        with RequestDeadline(1, first_s) as deadline:
            await asyncio.sleep(0.05)
            for each in then_s:
                deadline.set_patience(each)
            assert deadline.remaining_s() > 0.5  # what has been sent keeps its time
            await asyncio.sleep(5)

    for given, least_s, most_s in (
        ((None, 60, 0.1, None), 0.09, 0.9),
        ((None, 0.01), 0.04, 0.9),  # over when it is given
        ((0.1, 0.3), 0.29, 0.9),  # longer than it was
        ((0.1, 60), 0.99, 4),  # the time limit stays
    ):
        began = loop.time()
        with pytest.raises(DeadlineExceeded):
            await work(*given)
        assert least_s < loop.time() - began < most_s, given

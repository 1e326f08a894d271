"""Operations that gRPC has begun go on when their callers are gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.domain.errors import DeadlineExceeded
from gateway.inference_protocol.grpc.operations import Operations


class Context:
    """A call of which the message comes, and is read, when the test wants."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.finished: list[str] = []

    async def read(self) -> bytes:
        await self.ready.wait()
        self.finished.append("read")
        return b"message"

    async def write(self, message: object) -> None:
        await self.ready.wait()
        self.finished.append("write")


@pytest.mark.parametrize("operation", ["read", "write"])
async def test_an_operation_survives_the_task_that_waits_for_it(operation: str) -> None:
    operations, context = Operations(), Context()
    given: Any = context
    waiting = asyncio.create_task(
        operations.read(given) if operation == "read" else operations.write(given, b"message")
    )
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    context.ready.set()
    await asyncio.sleep(0.01)
    assert context.finished == [operation]


async def test_a_message_that_is_late_is_still_read() -> None:
    operations, context = Operations(), Context()
    given: Any = context
    with pytest.raises(DeadlineExceeded):
        await operations.read(given, 0.01)
    context.ready.set()
    await asyncio.sleep(0.01)
    assert context.finished == ["read"]


async def test_the_error_of_a_call_that_has_ended_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    operations, context = Operations(), Context()
    given: Any = context

    async def fail() -> bytes:
        await context.ready.wait()
        raise RuntimeError

    context.read = fail  # type: ignore[method-assign]
    operations.begin_read(given)
    context.ready.set()
    await asyncio.sleep(0.01)
    assert caplog.records == []

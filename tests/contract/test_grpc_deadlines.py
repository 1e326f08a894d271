"""Deadlines of gRPC clients: they end at the gateway, and give their clients no more slots than others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.support.fake_triton import FakeTriton
from tests.support.grpc_calls import grpc_stubs
from tests.support.harness import Running, running_gateway, settings_for, until

SLOTS = 2


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[Running]:
    settings = settings_for(triton, grpc_port=0, call_slots=SLOTS, max_call_texts=1)
    async with running_gateway(settings) as running:
        yield running


async def call(gateway: Running, text: str, timeout_s: float) -> grpc.StatusCode:
    """Classify one text; return the status."""
    async with grpc_stubs(gateway.grpc_port) as stubs:
        try:
            await stubs.infer(text, timeout_s=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def test_a_call_with_a_short_deadline_holds_its_slot_until_it_is_answered(
    triton: FakeTriton, gateway: Running
) -> None:
    release = asyncio.Event()

    async def stall(request: Any, context: Any) -> None:
        await release.wait()

    async def idle() -> bool:
        return triton.running == 0

    triton.infer_fault = stall
    for turn in range(5):
        codes = await asyncio.gather(*(call(gateway, f"{turn} {number}", 0.05) for number in range(4)))
        assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert 0 < triton.running <= SLOTS
    assert triton.cancelled == 0
    release.set()
    await until(idle)
    assert await call(gateway, "good", 5) is grpc.StatusCode.OK
    assert await gateway.client.metric("tritonflare_requests_in_flight") == 0


async def test_an_expired_call_is_no_error_in_the_log(
    triton: FakeTriton, gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(request: Any, context: Any) -> None:
        await asyncio.sleep(0.02)

    triton.infer_fault = slow
    for _ in range(5):
        codes = await asyncio.gather(*(call(gateway, "text", 0.05) for _ in range(20)))
        assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
    await asyncio.sleep(0.1)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []

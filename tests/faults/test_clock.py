"""The wall clock jumps; nothing that is measured may notice."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from tests.support.fake_triton import FakeTriton, hold
from tests.support.harness import running_gateway, settings_for, until

YEARS_S = 20 * 365 * 24 * 3600.0


@pytest.mark.parametrize("jump_s", [-YEARS_S, YEARS_S])
async def test_a_jump_of_the_clock_costs_no_request_and_no_readiness(
    monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    real = time.time

    def wall_clock() -> float:
        # gRPC adds a timeout to Python's clock and takes the kernel's away from it: no jump comes in between.
        caller = str(sys._getframe(1).f_globals.get("__name__"))
        return real() + (0 if caller.startswith("grpc") else jump_s)

    triton = FakeTriton()
    await triton.appear()
    try:
        settings = settings_for(triton, requests_per_minute=1000, cache_bytes=1_000_000)
        async with running_gateway(settings) as gateway:
            assert (await gateway.client.run({"text": "before"})).status == 200
            release = asyncio.Event()
            triton.infer_fault = hold(release)
            asked = asyncio.create_task(gateway.client.run({"text": "while"}))

            async def inferring() -> bool:
                return triton.running > 0

            await until(inferring)
            monkeypatch.setattr(time, "time", wall_clock)
            release.set()
            answer = await asked
            assert answer.status == 200
            triton.infer_fault = None
            # Longer than an answered canary counts, which the settings of the tests keep short.
            ends = time.monotonic() + 2.5
            while time.monotonic() < ends:
                assert (await gateway.client.get("/readyz")).status == 200
                assert (await gateway.client.run({"text": "after"})).status == 200
                await asyncio.sleep(0.1)
    finally:
        await triton.disappear()

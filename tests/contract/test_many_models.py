"""A thousand models: what they cost while nobody asks.

``IDLE_S=30 pytest -s`` prints the CPU time over so many seconds; the fake Triton's share is in it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

from tests.support.fake_triton import SST2, FakeEnsemble, FakeTriton
from tests.support.harness import running_gateway, settings_for, until

IDLE_S = float(os.environ.get("IDLE_S", "2"))
MODELS = int(os.environ.get("MODELS", "1000"))


async def test_a_thousand_models_cost_few_canaries_and_configurations(triton: FakeTriton) -> None:
    triton.ensembles += [FakeEnsemble(f"e{number}", f"@cf/x/m{number}") for number in range(MODELS - 1)]
    counted: Counter[str] = Counter()

    async def configured(request: Any, context: Any) -> None:
        counted["configurations"] += 1

    async def inferred(request: Any, context: Any) -> None:
        counted["canaries"] += 1
        counted["most at once"] = max(counted["most at once"], triton.running)

    triton.config_fault, triton.infer_fault = configured, inferred
    settings = settings_for(triton, refresh_interval_s=1, canaries_per_s=20, canary_max_age_s=5)
    async with running_gateway(settings, wait_ready=False) as running:

        async def ready() -> bool:
            return (await running.client.get("/readyz")).status == 200

        await until(ready, 60)
        assert (counted["canaries"], counted["configurations"]) == (MODELS, MODELS)
        assert counted["most at once"] <= 8
        counted.clear()
        began, cpu = time.monotonic(), time.process_time()
        while time.monotonic() < began + IDLE_S:
            assert (await running.client.get("/readyz")).status == 200
            await asyncio.sleep(0.5)
        took_s = time.monotonic() - began
        print(f"{took_s:.1f} s, CPU {time.process_time() - cpu:.2f} s, {dict(counted)}")
        # One look more than fits: it may have been about to begin.
        assert 0 < counted["canaries"] <= 20 * (took_s + 2)
        assert 0 < counted["configurations"] <= 128 * (took_s + 2)
        assert (await running.client.run({"text": "a"})).status == 200
        assert SST2 in (await running.client.get("/metrics")).body.decode()

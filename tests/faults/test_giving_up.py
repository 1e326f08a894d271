"""Callers who hang up, and deadlines that are over, about when the answer comes.

Triton 2.51 dies of an inference that is cancelled in that moment, and keeps what it had of others for
good, so that its orderly stop waits in vain. Nothing that the gateway has sent may be cancelled there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from loadtest.client import Target
from tests.faults.conftest import serving
from tests.support.bundled import bundled_repository

pytestmark = pytest.mark.needs_triton

CALLERS = 4
SECONDS = 6.0
"""Several times as long as Triton lived when calls were cancelled."""
STOPS_WITHIN_S = 8.0
"""Triton's own limit for calls that do not end is 10 s."""


async def give_up_about_when_the_answer_comes(target: Target, hang_up: bool, seen: Counter[bytes]) -> None:
    host, port = target.url.removeprefix("http://").split(":")
    usual_s = 0.005
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        # Where the gateway's deadline is what ends, some are in time and some cannot be.
        request = target.request("A joy." if hang_up else "A joy. " * random.choice((1, 1, 20, 60, 400)))
        reader, writer = await asyncio.open_connection(host, int(port))
        began = time.monotonic()
        writer.write(request)
        patience_s = usual_s * random.uniform(0.5, 1.5) if hang_up else 10
        try:
            status = (await asyncio.wait_for(reader.readline(), patience_s)).split()[1]
            usual_s += (time.monotonic() - began - usual_s) / 8
        except asyncio.TimeoutError:
            status = b"gone"
            usual_s *= 1.02
        seen[status] += 1
        writer.transport.abort()


@pytest.mark.parametrize(
    ("hang_up", "timeout_s", "expected"),
    [(True, "10", {b"200", b"gone"}), (False, "0.03", {b"200", b"408"})],
    ids=["callers hang up", "deadlines are over"],
)
def test_triton_survives_clients_that_leave_as_the_answer_comes(
    hang_up: bool, timeout_s: str, expected: set[bytes]
) -> None:
    seen: Counter[bytes] = Counter()

    async def all_of_them(target: Target) -> None:
        await asyncio.gather(
            *(give_up_about_when_the_answer_comes(target, hang_up, seen) for _ in range(CALLERS))
        )

    with serving(
        bundled_repository(), GATEWAY_REQUEST_TIMEOUT_S=timeout_s, GATEWAY_MAX_QUEUE_S="0.02"
    ) as served:
        triton = served.triton()
        asyncio.run(all_of_them(served.target))
        print(dict(seen))
        assert served.triton() == triton, dict(seen)
        assert served.restarts() == {}
        began = time.monotonic()
        served.program.stop()
        took_s = time.monotonic() - began
    # Both happened, so that the moment was met; under overload some may be told to come later.
    assert expected <= seen.keys() <= expected | {b"429"}, dict(seen)
    assert took_s < STOPS_WITHIN_S

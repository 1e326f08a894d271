"""gRPC clients that give up: a cancellation that reached Triton 2.51 would kill it."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.conftest import serving
from tests.faults.giving_up_over_grpc import GAUGES, gauges, give_up
from tests.support.bundled import bundled_repository
from tests.support.servers import wait_until

pytestmark = pytest.mark.needs_triton

SECONDS = 6.0
STOPS_WITHIN_S = 8.0
"""Triton's own limit for calls that do not end is 10 s."""
GROWS_BY_MIB = 20.0
"""Bound on the growth of the gateway's memory; it levels off at about 4."""


def test_triton_survives_grpc_clients_that_give_up_as_the_answer_comes() -> None:
    with serving(bundled_repository(), "--grpc-port", "0", GATEWAY_MAX_QUEUE_S="0.5") as served:
        triton = served.triton()
        seen, memory = asyncio.run(give_up(served, SECONDS))
        assert served.triton() == triton, dict(seen)
        assert served.restarts() == {}
        # Calls to Triton end by themselves, because none of them is cancelled.
        assert wait_until(lambda: gauges(served) == dict.fromkeys(GAUGES, 0.0), 5), gauges(served)
        began = time.monotonic()
        served.program.stop()
        took_s = time.monotonic() - began
    # All of them happened, so that the moment was met.
    expected = {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}
    assert expected <= seen.keys() <= expected | {"in time", "RESOURCE_EXHAUSTED"}, dict(seen)
    assert took_s < STOPS_WITHIN_S
    assert memory[-1]["gateway"] - memory[0]["gateway"] < GROWS_BY_MIB, memory

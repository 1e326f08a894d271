"""Batches survive kill -9 of gateways, their workers and Triton, with a file and with Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.queued_batches import report, run, staged

pytestmark = pytest.mark.needs_triton

BATCHES = 80
KILL_S = 12.0
"""The command of `queued_batches` kills for minutes."""
FINISH_S = 180.0


@pytest.mark.parametrize("kind", ["file", "redis"])
async def test_no_batch_is_lost_and_none_has_two_results_whatever_is_killed(
    kind: str, tmp_path: Path
) -> None:
    with staged(kind, tmp_path) as stage:
        ledger = await asyncio.wait_for(run(stage, BATCHES, KILL_S, FINISH_S), KILL_S + 2 * FINISH_S)
        print(report(stage, ledger))
        logs = "".join(gateway.log() for gateway in stage.gateways)
    assert ledger.problems == []
    assert len(ledger.accepted) == BATCHES
    assert ledger.results.keys() == ledger.accepted.keys()
    assert sum(stage.kills.values()) >= 4
    assert "Traceback" not in logs
    assert not any(text in logs for text in ledger.right)

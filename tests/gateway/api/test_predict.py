"""Large results of batches are rendered beside the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from gateway.api import envelope
from gateway.api.predict import PredictBody
from gateway.batches import codec
from gateway.batches.queue import FetchedBatch
from gateway.domain.service import BatchItem, Classification
from gateway.server.message import Response

LABELS, CHUNKS = 28, 157
ITEM = BatchItem(None, Classification([(f"label {n}", 1 / (n + 3)) for n in range(LABELS)], 3, False))
LARGE = FetchedBatch("id", [codec.encode_outcomes([ITEM] * 64)] * CHUNKS)


def a_body_reader() -> PredictBody:
    run: Any = SimpleNamespace(limits=SimpleNamespace(inputs=None, request_timeout_s=1.0))
    absent: Any = None
    return PredictBody(run, absent, absent, 1, 1)


def rendered(items: Sequence[BatchItem]) -> Response:
    return envelope.batch(items, "array", "request", "batch")


async def test_other_requests_have_their_turn_while_a_large_result_is_rendered() -> None:
    began = before = time.monotonic()
    longest_s = 0.0
    rendering = asyncio.create_task(a_body_reader().render(LARGE, rendered))
    while not rendering.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest_s, before = max(longest_s, now - before), now
    assert (await rendering).body == rendered(LARGE.items).body
    assert longest_s < (time.monotonic() - began) / 4


async def test_large_results_are_rendered_one_at_a_time() -> None:
    predict, at_once, most = a_body_reader(), 0, 0

    def render(items: Sequence[BatchItem]) -> Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.02)
        at_once -= 1
        return Response(200, b"")

    await asyncio.gather(*(predict.render(LARGE, render) for _ in range(5)))
    assert (most, at_once) == (1, 0)

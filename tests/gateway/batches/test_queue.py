"""Submitting, and callers that leave meanwhile."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.batches import codec
from gateway.batches.queue import BatchQueue
from gateway.batches.store import NewBatch
from gateway.domain.errors import BatchStoreUnavailable
from gateway.domain.options import CallOptions
from gateway.domain.requests import BatchRequest, TextRequest
from tests.gateway.batches.conftest import sqlite_in

REQUESTS = [BatchRequest(None, TextRequest("a"))]


async def test_a_batch_whose_caller_leaves_while_it_is_stored_counts_as_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_in(tmp_path) as store:
        accepted, submit = asyncio.Event(), store.submit

        async def slow(batch: NewBatch) -> None:
            await asyncio.sleep(0.1)
            await submit(batch)

        monkeypatch.setattr(store, "submit", slow)
        queue = BatchQueue(store, lambda account: account, accepted.set)
        batch = await queue.prepare("a", "a", "m", REQUESTS)
        submitting = asyncio.create_task(queue.submit(batch))
        await asyncio.sleep(0.02)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        await asyncio.wait_for(accepted.wait(), 5)
        assert await store.find("a", batch.id) is not None


async def test_a_batch_that_could_not_be_stored_does_not_count_and_nobody_need_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(batch: NewBatch) -> None:
        await asyncio.sleep(0.05)
        raise BatchStoreUnavailable

    counted: list[None] = []
    async with sqlite_in(tmp_path) as store:
        monkeypatch.setattr(store, "submit", failing)
        queue = BatchQueue(store, lambda account: account, lambda: counted.append(None))
        batch = await queue.prepare("a", "a", "m", REQUESTS)
        with pytest.raises(BatchStoreUnavailable):
            await queue.submit(batch)
        with caplog.at_level(logging.DEBUG), pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.submit(batch), 0.01)
        await asyncio.sleep(0.1)
    assert counted == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_chunk_holds_fewer_texts_that_are_read_in_windows(tmp_path: Path) -> None:
    requests = [BatchRequest(None, TextRequest("a" * 15 * 2048))] * 12 + REQUESTS * 64
    async with sqlite_in(tmp_path) as store:
        queue = BatchQueue(store, lambda account: account)
        windowed = await queue.prepare("a", "a", "m", requests, CallOptions(long_texts="window"))
        cut = await queue.prepare("a", "a", "m", requests, CallOptions(long_texts="cut"))
    assert [len(codec.decode_inputs(chunk)[0]) for chunk in windowed.chunks] == [4, 4, 4, 64]
    assert [len(codec.decode_inputs(chunk)[0]) for chunk in cut.chunks] == [64, 12]

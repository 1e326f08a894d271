"""The same tests for both stores: SQLite in a folder, and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.batches.redis_store import RedisBatchStore
from gateway.batches.sqlite_store import SqliteStore
from gateway.batches.store import BatchStore, BatchSummary, NewBatch, StoreLimits
from tests.support.redis import Redis, running_redis

ROOMY = StoreLimits(max_queued_batches=100, batch_store_bytes=10_000_000, batch_keep_s=3600)
FIRST = "batch-0"
OpenStore = Callable[[StoreLimits], BatchStore]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens the same store again and again, as the processes that share it do."""
    opened: list[BatchStore] = []
    if request.param == "redis":
        from redis.asyncio import Redis as Client

        server: Redis = request.getfixturevalue("redis_server")
        client: Any = Client.from_url(server.url)
        await client.flushdb()
        await client.aclose()

    def open_it(limits: StoreLimits) -> BatchStore:
        store: BatchStore
        if request.param == "redis":
            store = RedisBatchStore(request.getfixturevalue("redis_server").url, limits)
        else:
            store = SqliteStore(tmp_path / "state", limits)
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: OpenStore) -> BatchStore:
    return open_store(ROOMY)


@asynccontextmanager
async def sqlite_in(folder: Path, limits: StoreLimits = ROOMY) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(folder, limits)
    try:
        yield store
    finally:
        await store.close()


def a_batch(number: int = 0, *chunks: bytes, account: str = "a", model: str = "m") -> NewBatch:
    """A batch of two chunks, unless others are given."""
    given = chunks or (b"first", b"second")
    return NewBatch(f"batch-{number}", account, account, model, 2 * len(given), given)


async def finish(store: BatchStore, batch_id: str = FIRST) -> BatchSummary | None:
    for place, outcomes in enumerate((b"one", b"two")):
        await store.save(batch_id, place, outcomes, place)
    return await store.finish(batch_id)

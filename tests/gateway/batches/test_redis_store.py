"""Redis that is away, full, or addressed wrongly."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.batches.redis_store import MalformedRedisUrl, RedisBatchStore
from gateway.batches.store import FinishedBatch, NewBatch, StoreLimits
from gateway.domain.errors import BatchQueueFull, BatchStoreUnavailable
from tests.gateway.batches.conftest import ROOMY, a_batch, finish
from tests.support.redis import Redis, running_redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with running_redis(tmp_path) as server:
        yield server


async def test_while_redis_is_away_batches_are_refused_and_the_log_says_so_once(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisBatchStore(redis.url, ROOMY)
    await store.submit(a_batch(0))
    redis.stop()
    with caplog.at_level(logging.INFO, "tritonflare.batches"):
        for _ in range(3):
            with pytest.raises(BatchStoreUnavailable) as caught:
                await store.submit(a_batch(1))
        assert (caught.value.status, caught.value.code, caught.value.retryable) == (503, 3050, True)
        with pytest.raises(BatchStoreUnavailable):
            await store.find("a", "batch-0")
        redis.start()
        await store.submit(a_batch(2))
    said = [record.getMessage() for record in caplog.records]
    assert said == ["queued batches: Redis failed (ConnectionError)", "queued batches: Redis answers again"]
    assert str(redis.port) not in caplog.text
    await store.close()


async def test_a_redis_that_hangs_is_given_up_after_a_while(redis: Redis) -> None:
    store = RedisBatchStore(redis.url, ROOMY)
    await store.submit(a_batch(0))
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(BatchStoreUnavailable):
            await store.stats()
        assert time.monotonic() - began < 8
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    await store.close()


async def test_a_full_redis_refuses_and_keeps_nothing_of_the_batch(redis: Redis) -> None:
    from redis.asyncio import Redis as Client

    client: Any = Client.from_url(redis.url)
    store = RedisBatchStore(redis.url, ROOMY)
    await store.submit(a_batch(0))
    used = (await client.info("memory"))["used_memory"]
    await client.config_set("maxmemory", used + 100_000)
    before = await client.dbsize()
    accepted = 0
    with suppress(BatchStoreUnavailable):
        while accepted < 1000:
            await store.submit(a_batch(accepted + 1, b"x" * 10_000))
            accepted += 1
    assert 0 < accepted < 50
    assert await store.find("a", f"batch-{accepted + 1}") is None
    await client.config_set("maxmemory", 0)
    assert (await store.stats()).queued == accepted + 1
    # Each of them has a hash and its inputs.
    assert await client.dbsize() == before + 2 * accepted
    await client.aclose()
    await store.close()


@pytest.mark.parametrize("chunks", [[95], [8000] * 10])
async def test_redis_does_not_outgrow_the_bound(redis: Redis, chunks: list[int]) -> None:
    from redis.asyncio import Redis as Client

    client: Any = Client.from_url(redis.url)
    store = RedisBatchStore(redis.url, StoreLimits(1000, 1_000_000, 3600))
    used: list[int] = []
    with suppress(BatchQueueFull):
        while len(used) < 1000:
            texts = [b"x" * size for size in chunks]
            batch = NewBatch(str(uuid4()), "a" * 70, "a" * 32, "@cf/a/model" * 4, 1, texts)
            await store.submit(batch)
            for place, text in enumerate(texts):
                await store.save(batch.id, place, text, 0)
            await store.finish(batch.id)
            used.append((await client.info("memory"))["used_memory"])
    # The first has loaded the scripts.
    assert 1_000_000 / 5 < used[-1] - used[0] < 1_000_000
    assert 5 < len(used) < 1000
    await client.aclose()
    await store.close()


async def test_nothing_is_left_of_an_expired_batch(redis: Redis) -> None:
    from redis.asyncio import Redis as Client

    client: Any = Client.from_url(redis.url)
    store = RedisBatchStore(redis.url, StoreLimits(10, 100_000, 0.01))
    await store.submit(a_batch(0, b"secret"))
    await store.save("batch-0", 0, b"one", 0)
    assert b"secret" not in b"".join([await client.dump(key) for key in await client.keys()])
    await store.finish("batch-0")
    time.sleep(0.05)
    await store.remove_expired()
    assert {key.decode().rpartition(":")[2] for key in await client.keys()} == {"number", "bytes"}
    assert await client.get("{tritonflare:batches}:bytes") == b"0"
    await client.aclose()
    await store.close()


@pytest.mark.parametrize("lost", ["batch", "inputs"])
@pytest.mark.parametrize("is_claimed", [False, True])
async def test_an_unfinished_batch_that_lost_a_key_is_gone_and_the_others_go_on(
    redis: Redis, lost: str, is_claimed: bool
) -> None:
    from redis.asyncio import Redis as Client

    client: Any = Client.from_url(redis.url)
    store = RedisBatchStore(redis.url, StoreLimits(2, 10_000, 0.01))
    await store.submit(a_batch(0))
    if is_claimed:
        assert await store.claim("dead", 0.01) is not None
    await store.submit(a_batch(1))
    await client.delete(f"{{tritonflare:batches}}:{lost}:batch-0")
    time.sleep(0.05)
    assert await store.find("a", "batch-0") is None
    await store.save("batch-0", 0, b"one", 0)
    claimed = await store.claim("r", 30)
    assert claimed is not None
    assert claimed.id == "batch-1"
    assert await store.claim("r", 30) is None
    stats = await store.stats()
    assert (stats.queued, stats.running) == (0, 1)
    await store.submit(a_batch(2))
    for number in (1, 2):
        await finish(store, f"batch-{number}")
    time.sleep(0.05)
    await store.remove_expired()
    assert {key.decode().rpartition(":")[2] for key in await client.keys()} == {"number", "bytes"}
    assert await client.get("{tritonflare:batches}:bytes") == b"0"
    await client.aclose()
    await store.close()


@pytest.mark.parametrize("lost", ["batch", "outcomes"])
async def test_a_result_that_lost_a_key_is_gone_and_the_others_expire(redis: Redis, lost: str) -> None:
    from redis.asyncio import Redis as Client

    client: Any = Client.from_url(redis.url)
    store = RedisBatchStore(redis.url, StoreLimits(10, 100_000, 1))
    for number in range(2):
        await store.submit(a_batch(number))
        await finish(store, f"batch-{number}")
    await client.delete(f"{{tritonflare:batches}}:{lost}:batch-0")
    assert await store.find("a", "batch-0") is None
    assert isinstance(await store.find("a", "batch-1"), FinishedBatch)
    time.sleep(1.1)
    await store.remove_expired()
    assert {key.decode().rpartition(":")[2] for key in await client.keys()} == {"number", "bytes"}
    assert await client.get("{tritonflare:batches}:bytes") == b"0"
    await client.aclose()
    await store.close()


@pytest.mark.parametrize("url", ["http://host:1", "host:6379", "redis://:secret@host:port/0"])
def test_an_invalid_address_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(MalformedRedisUrl) as caught:
        RedisBatchStore(url, ROOMY)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None

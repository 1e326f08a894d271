"""Rates that several gateways count together in a real Redis, and what happens while it is away."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond

from gateway.access.rate_store import RedisStore
from gateway.settings import ConfigurationError
from tests.support.fake_triton import FakeTriton
from tests.support.harness import ANY_TOKEN, RUN, Running, running_gateway, settings_for
from tests.support.redis import Redis, running_redis
from tests.support.worker_processes import supervised_gateway

GOOD = {"text": "a"}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with running_redis(tmp_path) as server:
        yield server


@asynccontextmanager
async def two_gateways(triton: FakeTriton, redis: Redis, allowed: int) -> AsyncIterator[list[Running]]:
    settings = settings_for(triton, requests_per_minute=allowed, max_batch_texts=2, rate_redis_url=redis.url)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_gateway(settings)) for _ in range(2)]


async def test_two_gateways_count_one_rate(triton: FakeTriton, redis: Redis) -> None:
    async with two_gateways(triton, redis, 5) as gateways:
        statuses = [(await gateways[turn % 2].client.run(GOOD)).status for turn in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        refused = await gateways[0].client.run(GOOD)
        assert refused.error["code"] == 3021
        assert 100 <= int(refused.header("retry-after-ms") or 0) <= 120_000
        # The accounts of a token for any share another.
        other = await gateways[1].client.send(
            "POST", RUN.replace("0123", "9999"), b'{"text":"a"}', {"Authorization": f"Bearer {ANY_TOKEN}"}
        )
        assert other.status == 200


async def test_workers_count_one_rate(triton: FakeTriton, redis: Redis, tmp_path: Path) -> None:
    given = {
        "GATEWAY_REQUESTS_PER_MINUTE": "5",
        "GATEWAY_MAX_BATCH_TEXTS": "2",
        "GATEWAY_RATE_REDIS_URL": redis.url,
    }
    async with supervised_gateway(triton, tmp_path, **given) as running:
        from tests.support.harness import Client

        answers = await asyncio.gather(*(Client(running.port).run(GOOD) for _ in range(20)))
        assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 15


async def test_while_redis_is_away_each_gateway_counts_alone_without_delay(
    triton: FakeTriton, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_gateways(triton, redis, 3) as gateways:
        first, second = (gateway.client for gateway in gateways)
        assert (await first.run(GOOD)).status == 200
        redis.stop()
        with caplog.at_level(logging.INFO, "tritonflare"):
            began = time.perf_counter()
            statuses = [(await first.run(GOOD)).status for _ in range(4)]
            assert statuses == [200, 200, 200, 429]
            assert (await second.run(GOOD)).status == 200
            assert time.perf_counter() - began < 2
            assert await first.metric("tritonflare_rate_store_failures_total") >= 1
            redis.start()
            await asyncio.sleep(1.1)
            assert [(await first.run(GOOD)).status for _ in range(2)] == [200, 200]
            assert [(await second.run(GOOD)).status for _ in range(2)] == [200, 429]
        said = [record.getMessage() for record in caplog.records if record.name == "tritonflare.rate"]
        assert said.count("Redis is unreachable; falling back to rate limits per process") == 2
        assert said.count("Redis answers again") == 2
        assert redis.url not in caplog.text


async def test_a_redis_that_hangs_delays_one_request_in_a_while_and_not_all(
    triton: FakeTriton, redis: Redis
) -> None:
    async with two_gateways(triton, redis, 1000) as gateways:
        client = gateways[0].client
        await client.run(GOOD)
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            times = []
            for _ in range(50):
                began = time.perf_counter()
                assert (await client.run(GOOD)).status == 200
                times.append(time.perf_counter() - began)
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        assert 0.2 < max(times) < 1.5
        assert sum(taken > 0.2 for taken in times) <= 2


async def test_a_refused_client_that_waits_for_retry_after_passes(redis: Redis) -> None:
    store = RedisStore(redis.url, lambda: None)
    item = RateLimitItemPerSecond(3, 2)
    try:
        for texts in (3, 2, 1):
            await store.spend(item, "a", texts)
            wait_s = await store.spend(item, "a", 2)
            assert 0 < wait_s <= 4
            await asyncio.sleep(wait_s)
            assert await store.spend(item, "a", 2) == 0
    finally:
        await store.close()


async def test_a_store_whose_redis_was_never_there_counts_alone(tmp_path: Path) -> None:
    failures: list[int] = []
    store = RedisStore("redis://127.0.0.1:1/0", lambda: failures.append(1))
    item = RateLimitItemPerMinute(2)
    assert [await store.spend(item, "a", 1) > 0 for _ in range(3)] == [False, False, True]
    assert len(failures) == 1
    await store.close()


@pytest.mark.parametrize("url", ["http://host:1", "host:6379", "redis://:secret@host:port/0"])
def test_an_invalid_address_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="GATEWAY_RATE_REDIS_URL is not of the form") as caught:
        RedisStore(url, lambda: None)
    assert "secret" not in str(caught.value)

"""Fixtures: a fake Triton, the real gateway in front of it, a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_triton import FakeTriton
from tests.support.harness import Client, Running, running_gateway, settings_for
from tests.support.queued_batches import Configure
from tests.support.redis import Redis, running_redis


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("GATEWAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    fake = FakeTriton()
    await fake.appear()
    yield fake
    await fake.disappear()


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[Running]:
    async with running_gateway(settings_for(triton)) as running:
        yield running


@pytest.fixture
def client(gateway: Running) -> Client:
    return gateway.client


@pytest.fixture(scope="session")
def batch_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("batch_redis")) as server:
        yield server


@pytest.fixture(params=["file", "redis"])
async def configure(request: pytest.FixtureRequest, triton: FakeTriton, tmp_path: Path) -> Configure:
    """Settings of gateways that share a store."""
    if request.param == "file":
        given: dict[str, Any] = {"batch_folder": tmp_path / "batches"}
    else:
        from redis.asyncio import Redis as RedisClient

        given = {"batch_redis_url": request.getfixturevalue("batch_redis").url}
        client: Any = RedisClient.from_url(given["batch_redis_url"])
        await client.flushdb()
        await client.aclose()
    return lambda **overrides: settings_for(triton, **given | overrides)


@pytest.fixture
async def queueing(configure: Configure) -> AsyncIterator[Running]:
    async with running_gateway(configure()) as running:
        yield running

"""Fixtures: a fake Triton, the real gateway in front of it, a client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.fake_triton import FakeTriton
from tests.support.harness import Client, Running, running_gateway, settings_for


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

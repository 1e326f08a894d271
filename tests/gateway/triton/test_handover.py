"""The change from one server to another, with servers of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.domain.backend import RawScores
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.errors import BackendUnavailable, ModelUnavailable
from gateway.triton.handover import HandoverBackend
from tests.gateway.domain.test_catalogue import ensemble


class Server:
    """Answers with the number in its address."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_open = False
        self.ensembles: Sequence[Ensemble] = [ensemble("a", name="A", version=url)]
        self.discovery: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def discover(self) -> Sequence[Ensemble]:
        if self.discovery is not None:
            raise self.discovery
        return self.ensembles

    async def classify(self, model: Model, texts: Sequence[Any], deadline_s: float) -> Sequence[RawScores]:
        await self.go_on.wait()
        assert self.is_open
        return [RawScores((float(self.url), 0.0), 2) for _ in texts]


class Stage:
    def __init__(self) -> None:
        self.servers = {number: Server(number) for number in "12"}
        self.catalogue = Catalogue()
        self.backend = HandoverBackend(self.servers.__getitem__, "1", lambda: self.catalogue)

    async def begin(self) -> Model:
        await self.backend.open()
        self.catalogue.replace(await self.backend.discover())
        return self.catalogue.find("A")

    async def move(self, drain_s: float = 5.0) -> None:
        await self.backend.hand_over("2", self.catalogue.replace, drain_s)

    async def asked(self, model: Model) -> float:
        (scores,) = await self.backend.classify(model, (b"x",), 1.0)
        return scores.logits[0]


async def test_new_calls_go_to_the_new_server_and_those_under_way_end_at_the_old() -> None:
    stage = Stage()
    old = await stage.begin()
    stage.servers["1"].go_on.clear()
    under_way = asyncio.create_task(stage.asked(old))
    await asyncio.sleep(0)
    moving = asyncio.create_task(stage.move())
    await asyncio.sleep(0.3)
    new = stage.catalogue.find("A")
    assert new != old
    assert await stage.asked(new) == 2
    assert not moving.done()
    # A text that waited for a call when the server changed is read as what it was meant for.
    queued = asyncio.create_task(stage.asked(old))
    stage.servers["1"].go_on.set()
    assert await under_way == await queued == 1
    await moving
    assert [server.is_open for server in stage.servers.values()] == [False, True]


async def test_a_call_that_takes_too_long_does_not_block_others() -> None:
    stage = Stage()
    old = await stage.begin()
    stage.servers["1"].go_on.clear()
    under_way = asyncio.create_task(stage.asked(old))
    await asyncio.sleep(0)
    await asyncio.wait_for(stage.move(drain_s=0.2), 2)
    assert not stage.servers["1"].is_open
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)


async def test_a_late_text_goes_to_the_new_server_if_its_answer_can_be_read() -> None:
    stage = Stage()
    old = await stage.begin()
    await stage.move()
    assert await stage.asked(old) == 2


async def test_a_late_text_for_other_labels_is_refused() -> None:
    stage = Stage()
    stage.servers["2"].ensembles = [ensemble("a", name="A", labels='["Y", "X"]')]
    old = await stage.begin()
    await stage.move()
    assert stage.catalogue.find("A").labels == ("Y", "X")
    with pytest.raises(ModelUnavailable):
        await stage.asked(old)


async def test_a_server_that_is_away_changes_nothing() -> None:
    stage = Stage()
    model = await stage.begin()
    stage.servers["2"].discovery = BackendUnavailable()
    with pytest.raises(BackendUnavailable):
        await stage.move()
    assert await stage.asked(model) == 1
    assert [server.is_open for server in stage.servers.values()] == [True, False]

"""When a text is sent to a second model, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Model
from gateway.domain.inputs import ModelInput
from gateway.domain.requests import TextRequest
from gateway.domain.scores import ProblemType
from gateway.domain.service import Classification, Predictor
from gateway.shadow.comparison import Comparison
from gateway.shadow.mirror import Capacity, Drop, Mirror
from tests.support.virtual_time import in_virtual_time

FIRST, SECOND = (
    Model(name, name, ("a", "b"), 512, ProblemType.SINGLE_LABEL) for name in ("@cf/a/first", "@cf/a/second")
)
ANSWER = Classification([("a", 0.9), ("b", 0.1)], tokens=3, truncated=False)
CALL_S = 0.01


@dataclass
class Server:
    """What the mirror sees of a server, and what it does to it."""

    in_flight: int = 0
    waiting: int = 0
    spare: bool = True
    sent_at: list[float] = field(default_factory=list)
    dropped_for: list[str] = field(default_factory=list)

    async def classify(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[Answer]:
        self.sent_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(CALL_S)
        return [RawScores((1.0, -1.0), 3) for _ in texts]

    def compared(self, model: Model, shadow: Model, found: Comparison) -> None:
        pass

    def failed(self, model: Model, shadow: Model) -> None:
        pass

    def dropped(self, model: str, shadow: str, reason: Drop) -> None:
        self.dropped_for.append(reason)

    def mirror(self) -> Mirror:
        return Mirror(
            {FIRST.name: (SECOND.name, 1.0)},
            Predictor(self),
            lambda name: SECOND,
            Capacity(
                in_flight=lambda: self.in_flight,
                has_spare_slot=lambda model: self.spare,
                is_quiet=lambda: not self.waiting,
                is_available=lambda model: True,
            ),
            self,
            deadline_s=5.0,
        )


def offer(mirror: Mirror, texts: int, text: str = "text") -> None:
    for _ in range(texts):
        mirror.offer(FIRST, TextRequest(text), ANSWER)


@in_virtual_time
async def test_a_text_is_held_back_until_its_answer_has_left() -> None:
    server = Server()
    mirror = server.mirror()
    async with mirror.running():
        began = asyncio.get_running_loop().time()
        offer(mirror, 1)
        await asyncio.sleep(0.5)
    (sent_at,) = server.sent_at
    assert 0.05 <= sent_at - began < 0.1


@in_virtual_time
async def test_calls_take_a_twentieth_of_the_time_while_there_are_requests() -> None:
    server = Server(in_flight=3)
    mirror = server.mirror()
    async with mirror.running():
        for _ in range(50):
            offer(mirror, 4)
            await asyncio.sleep(0.2)
    spent = len(server.sent_at) * CALL_S / 10
    assert 0.01 < spent <= 0.05


@in_virtual_time
async def test_without_requests_all_are_sent_one_after_the_other() -> None:
    server = Server()
    mirror = server.mirror()
    async with mirror.running():
        await asyncio.sleep(2)
        offer(mirror, 60)
        await asyncio.sleep(2)
    assert len(server.sent_at) == 60
    gaps = [later - earlier for earlier, later in zip(server.sent_at, server.sent_at[1:], strict=False)]
    assert min(gaps) > 0.99 * CALL_S


@in_virtual_time
async def test_nothing_is_sent_while_texts_wait_or_no_slot_would_be_left() -> None:
    for server in (Server(in_flight=3, waiting=1), Server(spare=False)):
        mirror = server.mirror()
        async with mirror.running():
            offer(mirror, 2)
            await asyncio.sleep(6)
        assert server.sent_at == []
        assert server.dropped_for == ["busy", "busy"]


@in_virtual_time
async def test_the_queue_is_bounded_by_texts_and_bytes() -> None:
    server = Server(spare=False)
    mirror = server.mirror()
    async with mirror.running():
        offer(mirror, 70)
        assert server.dropped_for == ["full"] * 6
    server = Server(spare=False)
    mirror = server.mirror()
    async with mirror.running():
        offer(mirror, 3, "x" * 100_000)
        assert server.dropped_for == ["full"]


@in_virtual_time
async def test_the_end_waits_for_the_call_under_way_and_begins_none() -> None:
    server = Server()
    mirror = server.mirror()
    async with mirror.running():
        offer(mirror, 5)
        while not server.sent_at:
            await asyncio.sleep(0.001)
    assert len(server.sent_at) == 1

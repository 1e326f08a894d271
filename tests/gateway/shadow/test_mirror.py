"""When a text is sent to a second model, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from gateway.domain.backend import Answer, RawScores
from gateway.domain.catalogue import Model
from gateway.domain.errors import BackendUnavailable, NoSuchModel
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
RULES = {FIRST.name: SECOND.name}
CALL_S = 0.01


@dataclass
class Server:
    """What the mirror sees of a server, and what it does to it."""

    in_flight: int = 0
    waiting: int = 0
    spare: bool = True
    sent_at: list[float] = field(default_factory=list)
    dropped_for: list[str] = field(default_factory=list)
    compared_with: list[str] = field(default_factory=list)
    served: dict[str, Model] = field(default_factory=lambda: {FIRST.name: FIRST, SECOND.name: SECOND})
    """By name or alias."""
    faults: list[Exception] = field(default_factory=list)
    """Raised by what counts, one at a time."""

    async def classify(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[Answer]:
        self.sent_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(CALL_S)
        return [RawScores((1.0, -1.0), 3) for _ in texts]

    def compared(self, model: Model, shadow: Model, found: Comparison) -> None:
        self.compared_with.append(shadow.name)
        if self.faults:
            raise self.faults.pop()

    def failed(self, model: Model, shadow: Model) -> None:
        pass

    def dropped(self, model: str, shadow: str, reason: Drop) -> None:
        self.dropped_for.append(reason)

    def find(self, name: str) -> Model:
        if not self.served:
            raise BackendUnavailable
        if name not in self.served:
            raise NoSuchModel(name)
        return self.served[name]

    def mirror(self, rules: Mapping[str, str] = RULES, **more: float) -> Mirror:
        mirror = Mirror(
            {name: (second, 1.0) for name, second in rules.items()},
            Predictor(self),
            self.find,
            Capacity(
                in_flight=lambda: self.in_flight,
                has_spare_slot=lambda model: self.spare,
                is_quiet=lambda: not self.waiting,
                is_available=lambda model: True,
            ),
            self,
            deadline_s=5.0,
            **more,
        )
        mirror.resolve()
        return mirror


def offer(mirror: Mirror, texts: int, text: str = "text", answer: Classification = ANSWER) -> None:
    for _ in range(texts):
        mirror.offer(FIRST, TextRequest(text), answer)


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
async def test_calls_take_their_share_of_the_time_while_there_are_requests() -> None:
    for share in (0.05, 0.0125):
        server = Server(in_flight=3)
        mirror = server.mirror(busy_share=share)
        async with mirror.running():
            for _ in range(50):
                offer(mirror, 4)
                await asyncio.sleep(0.2)
        spent = len(server.sent_at) * CALL_S / 10
        assert 0.2 * share < spent <= share + CALL_S / 10  # one call more than the rests between them


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


@in_virtual_time
async def test_a_text_that_was_read_in_windows_is_not_compared() -> None:
    server = Server()
    mirror = server.mirror()
    async with mirror.running():
        offer(mirror, 1, answer=replace(ANSWER, windows=2))
        offer(mirror, 1)
        await asyncio.sleep(0.5)
    assert len(server.sent_at) == 1


@in_virtual_time
async def test_an_error_of_what_counts_ends_the_comparison_of_one_text_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(faults=[RuntimeError("cannot count")])
    mirror = server.mirror()
    async with mirror.running():
        offer(mirror, 3, "a private text")
        await asyncio.sleep(1)
    assert len(server.compared_with) == 3
    assert caplog.text.count("could not be compared") == 1
    assert "private" not in caplog.text


def test_a_text_that_there_is_no_room_for_is_not_encoded() -> None:
    class Text(TextRequest):
        def inputs(self) -> tuple[bytes, ...]:
            raise AssertionError

    async def offer_all() -> None:
        server = Server()
        mirror = server.mirror()
        offer(mirror, 64)
        mirror.offer(FIRST, Text("text"), ANSWER)
        assert server.dropped_for == ["full"]

    asyncio.run(offer_all())


@in_virtual_time
async def test_aliases_mean_their_models() -> None:
    server = Server()
    server.served |= {"@cf/a/alias": FIRST, "@cf/a/other": SECOND}
    mirror = server.mirror({"@cf/a/alias": "@cf/a/other"})
    async with mirror.running():
        offer(mirror, 1)
        await asyncio.sleep(0.5)
    assert server.compared_with == [SECOND.name]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"@cf/a/frist": SECOND.name}, "@cf/a/frist is compared with no second model: it is not served"),
        ({FIRST.name: "@cf/a/scond"}, "@cf/a/first is not compared with @cf/a/scond: that is not served"),
        ({FIRST.name: "@cf/a/alias"}, "@cf/a/first is not compared with @cf/a/alias: both are @cf/a/first"),
        (
            RULES | {"@cf/a/alias": SECOND.name},
            "@cf/a/alias is not compared with @cf/a/second: @cf/a/first is compared already",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_once_until_it_is_mended(
    caplog: pytest.LogCaptureFixture, rules: dict[str, str], told: str
) -> None:
    server = Server()
    server.served["@cf/a/alias"] = FIRST
    mirror = server.mirror(rules)
    mirror.resolve()
    known, server.served = server.served, {}
    mirror.resolve()  # Triton is away: nothing is known, and so nothing is said
    server.served = known
    mirror.resolve()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"GATEWAY_SHADOW: {told}")
    ]
    server.served |= {
        name: SECOND if name == "@cf/a/scond" else FIRST for name in ("@cf/a/frist", "@cf/a/scond")
    }
    mirror.resolve()
    assert len(caplog.records) == 1

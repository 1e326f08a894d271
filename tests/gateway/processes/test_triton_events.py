"""The relay between the supervisor of Triton and a gateway that is built later."""

from __future__ import annotations

import asyncio

from gateway.processes.triton_events import TritonEventRelay


class Receiver:
    """Records the events."""

    def __init__(self) -> None:
        self.restarts: list[str] = []
        self.handovers: list[str] = []

    def triton_restarted(self, reason: str) -> None:
        self.restarts.append(reason)

    async def hand_over(self, url: str) -> None:
        self.handovers.append(url)


async def test_restarts_before_the_gateway_exists_are_relayed_once() -> None:
    relay, receiver = TritonEventRelay(), Receiver()
    relay.triton_restarted("ended")
    relay.connect(receiver)
    relay.triton_restarted("stub")
    assert receiver.restarts == ["ended", "stub"]


async def test_a_handover_waits_for_the_gateway() -> None:
    relay, receiver = TritonEventRelay(), Receiver()
    handover = asyncio.create_task(relay.hand_over("127.0.0.1:9"))
    await asyncio.sleep(0)
    assert not handover.done()
    relay.connect(receiver)
    await handover
    assert receiver.handovers == ["127.0.0.1:9"]

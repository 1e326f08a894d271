"""A Backend that can be handed over from one Triton to another while requests are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.domain.backend import Backend, RawScores
from gateway.domain.catalogue import Ensemble, Model
from gateway.domain.errors import ModelUnavailable
from gateway.domain.inputs import ModelInput

_QUIET_S = 0.1
"""A server is idle after so long without a call: queued texts follow each other faster."""


class Client(Backend, Protocol):
    """A backend at one address."""

    async def open(self) -> None:
        """Start connecting."""
        ...

    async def close(self) -> None:
        """Close, after a short time for calls under way."""
        ...


class _Server:
    """A client and the number of its calls under way."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.under_way = 0

    async def classify(
        self, model: Model, texts: Sequence[ModelInput], deadline_s: float
    ) -> Sequence[RawScores]:
        self.under_way += 1
        try:
            return await self.client.classify(model, texts, deadline_s)
        finally:
            self.under_way -= 1


class HandoverBackend:
    """Calls the present server, and the one before for texts whose model was found there.

    So a text that was waiting while the server changed is not read with the labels of another version.

    Args:
        client: makes a client for an address.
        url: the first address.
        served: gives the models of the catalogue.
    """

    def __init__(
        self, client: Callable[[str], Client], url: str, served: Callable[[], Iterable[Model]]
    ) -> None:
        self._client = client
        self._served = served
        self._now = _Server(client(url))
        self._before: _Server | None = None
        self._replaced_models: frozenset[Model] = frozenset()
        """Models that only earlier servers had."""
        self._opened = asyncio.Event()

    async def open(self) -> None:
        """Start connecting."""
        await self._now.client.open()
        self._opened.set()

    async def close(self) -> None:
        """Close all; requests have been drained before."""
        for server in (self._now, self._before):
            if server is not None:
                await server.client.close()

    async def discover(self) -> Sequence[Ensemble]:
        """List the ready ensembles of the present server; see Backend."""
        server = self._now
        found = await server.client.discover()
        return found if server is self._now else await self._now.client.discover()

    async def classify(
        self, model: Model, texts: Sequence[ModelInput], deadline_s: float
    ) -> Sequence[RawScores]:
        """Run one call; see Backend."""
        server = self._now
        if self._replaced_models and model in self._replaced_models:
            if self._before is not None:
                server = self._before
            elif not any(_same_outputs(model, other) for other in self._served()):
                raise ModelUnavailable
        return await server.classify(model, texts, deadline_s)

    async def hand_over(
        self, url: str, replace: Callable[[Sequence[Ensemble]], None], drain_s: float
    ) -> None:
        """Change to another server; return when no call is under way at the present one.

        Args:
            url: its address.
            replace: makes what it is given the catalogue, at once.
            drain_s: the longest that calls under way may take.

        Raises:
            AiError: the other one cannot be reached; everything is as it was.
        """
        await self._opened.wait()
        fresh = _Server(self._client(url))
        await fresh.client.open()
        try:
            found = await fresh.client.discover()
        except BaseException:
            await fresh.client.close()
            raise
        before = frozenset(self._served())
        # No await in between: catalogue and server change together.
        replace(found)
        self._replaced_models = (self._replaced_models | before) - frozenset(self._served())
        old, self._now, self._before = self._now, fresh, self._now
        await self._quiet(old, drain_s)
        self._before = None
        await old.client.close()

    async def _quiet(self, server: _Server, longest_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + longest_s
        last = loop.time()
        while (now := loop.time()) < min(ends, last + _QUIET_S):
            await asyncio.sleep(_QUIET_S / 10)
            if server.under_way:
                last = now


def _same_outputs(one: Model, other: Model) -> bool:
    """Whether the two models have the same outputs: ensemble and labels in order."""
    return one.ensemble == other.ensemble and one.labels == other.labels

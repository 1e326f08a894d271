"""What a tracer learns of requests and calls, without OpenTelemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from gateway.domain.catalogue import Model
from gateway.domain.coalescing.coalescer import Coalescer
from gateway.domain.errors import BackendFailed
from tests.gateway.domain.coalescing.test_coalescer import LIMITS, Calls, ask

REQUEST: ContextVar[str | None] = ContextVar("request", default=None)


class Tracer:
    """Records the contexts of each call, and how it ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[object | None, ...]] = []
        self.errors: list[str | None] = []

    def request_context(self) -> object | None:
        return REQUEST.get()

    @contextmanager
    def call(self, model: Model, contexts: Sequence[object | None]) -> Iterator[None]:
        self.calls.append(tuple(contexts))
        try:
            yield
        except Exception as error:
            self.errors.append(type(error).__name__)
            raise
        self.errors.append(None)


async def request(coalescer: Coalescer, name: str | None, *texts: bytes) -> None:
    REQUEST.set(name)
    await ask(coalescer, *texts)


async def test_a_call_has_the_context_of_each_of_its_texts() -> None:
    tracer = Tracer()
    coalescer = Coalescer(Calls(), replace(LIMITS, call_slots=1), tracer=tracer)
    await asyncio.gather(
        request(coalescer, "first", b"a", b"b"),
        request(coalescer, None, b"c"),
        request(coalescer, "last", b"d"),
    )
    assert tracer.calls == [("first", "first", None, "last")]
    assert tracer.errors == [None]


async def test_a_call_that_is_repeated_for_each_text_is_traced_each_time() -> None:
    tracer = Tracer()
    calls = Calls(fault=lambda texts: BackendFailed() if b"bad" in texts else None)
    coalescer = Coalescer(calls, replace(LIMITS, call_slots=1), tracer=tracer)
    await asyncio.gather(request(coalescer, "first", b"bad"), request(coalescer, "second", b"good"))
    assert tracer.calls == [("first", "second"), ("first",), ("second",)]
    assert tracer.errors == ["BackendFailed", "BackendFailed", None]

"""Every way in which a request with a long text fails, for each of the API's forms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.contract.test_binding import PROXY, SENT
from tests.support.fake_triton import FakeTriton, fail, hold, read_texts
from tests.support.harness import RUN, TOKEN, Client, read_answer, until

AUTH = {"Authorization": f"Bearer {TOKEN}"}
FORWARDED = {"X-Forwarded": "https://workers-binding.ai/run?version=3"}
GONE = 0
"""Instead of a status: the caller did not wait for it."""


@dataclass(frozen=True)
class Form:
    """One of the API's forms: where its requests go, and how a text stands in their body."""

    path: str
    headers: dict[str, str]
    payload: Callable[[object], object]

    def body(self, text: object) -> bytes:
        return json.dumps(self.payload(text)).encode()


FORMS = {
    "run": Form(RUN, AUTH, lambda text: {"text": text}),
    "batch": Form(RUN, AUTH, lambda text: {"requests": [{"text": text}, {"text": "short"}]}),
    "binding": Form(PROXY, AUTH | SENT | FORWARDED, lambda text: {"inputs": {"text": text}, "options": {}}),
}


async def _whole(client: Client, form: Form, text: str) -> int:
    return (await client.send("POST", form.path, form.body(text), form.headers)).status


async def _no_text(client: Client, form: Form, text: str) -> int:
    # A batch answers the text beside it: so both are wrong there.
    body = form.body(7).replace(b'"short"', b"7").replace(b"7", json.dumps([text[: len(text) // 2]]).encode())
    answer = await client.send("POST", form.path, body, form.headers)
    return 400 if b"not in" in answer.body else answer.status


async def _no_json(client: Client, form: Form, text: str) -> int:
    return (await client.send("POST", form.path, form.body(text)[:-1], form.headers)).status


async def _half(client: Client, form: Form, text: str) -> int:
    """Send half of the body and wait."""
    body = form.body(text)
    headers = form.headers | {"Content-Length": str(len(body))}
    return (await client.send("POST", form.path, body[: len(body) // 2], headers)).status


async def _chunked(client: Client, form: Form, text: str) -> int:
    body = form.body(text)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return (
        await client.send("POST", form.path, sent, form.headers | {"Transfer-Encoding": "chunked"})
    ).status


async def _hang_up(client: Client, form: Form, text: str) -> int:
    """Leave when the gateway works on the text."""
    _, writer = await client.open("POST", form.path, form.body(text), form.headers)
    await writer.drain()
    await _in_flight(client, lambda texts: texts > 0)
    writer.close()
    await _in_flight(client, lambda texts: texts == 0)
    return GONE


async def _hang_up_in_body(client: Client, form: Form, text: str) -> int:
    body = form.body(text)
    headers = form.headers | {"Content-Length": str(len(body))}
    _, writer = await client.open("POST", form.path, body[: len(body) // 2], headers)
    await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return GONE


async def _in_flight(client: Client, met: Callable[[float], bool]) -> None:
    async def is_met() -> bool:
        return met(await client.metric("tritonflare_requests_in_flight"))

    await until(is_met)


@dataclass(frozen=True)
class Failure:
    """How requests come to fail."""

    status: int
    send: Callable[[Client, Form, str], Awaitable[int]] = _whole
    fault: Callable[[], Any] = lambda: None
    """Makes what goes wrong at Triton."""
    reshape: Callable[[Any], Any] = lambda response: response
    settings: dict[str, Any] = field(default_factory=dict)
    held: int = 0
    """Other requests that Triton, or the queue before it, holds meanwhile."""


def slowly(pause_s: float) -> Any:
    """Return a fault that lets texts take so long, canaries not."""

    async def fault(request: Any, context: Any) -> None:
        if read_texts(request) != [b"This is a canary."]:
            await asyncio.sleep(pause_s)

    return fault


def _without_outputs(response: Any) -> Any:
    del response.raw_output_contents[:]
    return response


def _not_finite(response: Any) -> Any:
    response.raw_output_contents[1] = b"\xff" * len(response.raw_output_contents[1])
    return response


_HELD = json.dumps({"text": "held " * 5_000}).encode()
"""As long as what fails, or it would wait in another queue."""
_SHORT = {"request_timeout_s": 0.25, "call_slots": 20}
AT_TRITON: dict[str, Failure] = {
    "500, the model fails": Failure(500, fault=lambda: fail(grpc.StatusCode.INTERNAL)),
    "500, no answer": Failure(500, reshape=_without_outputs),
    "500, not finite": Failure(500, reshape=_not_finite),
    "503": Failure(503, fault=lambda: fail(grpc.StatusCode.UNAVAILABLE)),
    "408, inference": Failure(408, fault=lambda: slowly(0.4), settings=_SHORT),
    "429, Triton": Failure(429, fault=lambda: fail(grpc.StatusCode.RESOURCE_EXHAUSTED)),
    "hang-up": Failure(GONE, _hang_up, lambda: slowly(0.2)),
}
BEFORE_TRITON: dict[str, Failure] = {
    "400, no text": Failure(400, _no_text),
    "400, no JSON": Failure(400, _no_json),
    "408, body": Failure(408, _half, settings=_SHORT),
    "413, announced": Failure(413, settings={"max_body_bytes": 50_000}),
    "413, chunked": Failure(413, _chunked, settings={"max_body_bytes": 50_000}),
    "429, full": Failure(429, settings={"max_requests_in_flight": 1, "max_batch_texts": 1}, held=1),
    "429, queue": Failure(429, settings={"call_slots": 1, "max_queue_s": 0.01}, held=2),
    "429, rate": Failure(429, settings={"requests_per_minute": 2, "max_batch_texts": 2}),
    "hang-up, body": Failure(GONE, _hang_up_in_body),
}
FAILURES = AT_TRITON | BEFORE_TRITON


@asynccontextmanager
async def failing(failure: Failure, client: Client, triton: FakeTriton) -> AsyncIterator[None]:
    """Arrange a failure until the end of the block."""
    release = asyncio.Event()
    triton.infer_fault = hold(release) if failure.held else failure.fault()
    triton.reshape = failure.reshape
    held = []
    for number in range(failure.held):
        held.append(await client.open("POST", RUN, _HELD))
        await _in_flight(client, lambda texts, least=number + 1: texts >= least)  # type: ignore[misc]
    if failure.held > 1:
        await asyncio.sleep(0.05)  # longer than max_queue_s
    if "requests_per_minute" in failure.settings:
        await client.run({"requests": [{"text": "spends"}, {"text": "the rate"}]})
    yield
    release.set()
    triton.infer_fault = None
    triton.reshape = lambda response: response
    for reader, writer in held:
        assert (await read_answer(reader)).status == 200
        writer.close()

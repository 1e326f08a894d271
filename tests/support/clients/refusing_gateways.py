"""Gateways that refuse, each for one reason, and what an official SDK must make of it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.bundled import bundled_repository
from tests.support.clients.checks import MODEL, TEXT, UUID
from tests.support.servers import ACCOUNT, TOKEN, Program, running, wait_until


@dataclass(frozen=True)
class Refusal:
    """A call and how it ends. ``kind`` is the exception's class, None where the SDKs have none for it."""

    name: str
    kind: str | None
    status: int
    code: int
    message: str
    gateway: str = "gateway"
    text: str = TEXT
    model: str = MODEL
    token: str = TOKEN
    account: str = ACCOUNT
    attempts: int = 1
    pause_s: float = 0.0
    """What Retry-After asks for; without it, both SDKs wait for 0.5 s at most before the second attempt."""
    retries: int = 2
    """What the client permits; two is the SDKs' own number."""

    def check_message(self, message: str) -> None:
        """The sentence of the contract, with a request id where the AI service speaks."""
        ai = rf"AiError: {re.escape(self.message)} \({UUID.pattern}\)"
        assert re.fullmatch(re.escape(self.message) if self.code == 10000 else ai, message), message

    def check_attempts(self, started: list[float]) -> None:
        """As many requests as expected, each after the pause that was asked for."""
        assert len(started) == self.attempts
        pauses = [after - before for before, after in pairwise(started)]
        assert all(pause >= self.pause_s for pause in pauses), pauses


REFUSALS = [
    Refusal(
        "an empty text",
        "BadRequestError",
        400,
        5006,
        "Bad input: Error: Length of '/text' must be >= 1 not met",
        text="",
    ),
    Refusal(
        "an unknown model",
        "BadRequestError",
        400,
        5007,
        "No such model @cf/no/model or task",
        model="@cf/no/model",
    ),
    Refusal("an unknown token", "AuthenticationError", 401, 10000, "Authentication error", token="wrong"),
    Refusal(
        "a foreign account", "PermissionDeniedError", 403, 10000, "Authentication error", account="f" * 32
    ),
    Refusal(
        "a text that is too large",
        None,
        413,
        3006,
        "Request is too large: the limit is 1048576 bytes",
        text="a" * 1_100_000,
    ),
    Refusal("no time", None, 408, 3007, "Request timeout", "hasty_gateway", text="great " * 600, attempts=3),
    Refusal(
        "no free place",
        "RateLimitError",
        429,
        3040,
        "Capacity temporarily exceeded, please try again.",
        "busy_gateway",
        attempts=3,
        pause_s=0.5,
    ),
    # Its Retry-After is up to a minute, so the client is told not to wait.
    Refusal(
        "a used-up rate",
        "RateLimitError",
        429,
        3021,
        "rate limiting: inference request per min rate reached",
        "spent_gateway",
        retries=0,
    ),
    Refusal(
        "Triton being away",
        "InternalServerError",
        503,
        3050,
        "The model server is not available, please try again.",
        "orphaned_gateway",
        attempts=3,
        pause_s=1.0,
    ),
]


@contextmanager
def gateway_without_triton() -> Iterator[Program]:
    """A gateway that was ready when its Triton died.

    That Triton is the one of another ``tritonflare serve``, because two in one process would sweep each
    other's shared memory away.
    """
    tokens = f"{ACCOUNT}:{TOKEN}"
    served = "serve", "--port", "0", "--repository", str(bundled_repository())
    with running(*served, GATEWAY_API_TOKENS=tokens) as server, ExitStack() as stack:
        triton = next(child for child in server.children() if child.name() == "tritonserver")
        address, key = _address_and_key(triton)
        settings = {"GATEWAY_API_TOKENS": tokens, "GATEWAY_TRITON_METADATA_KEY": key}
        gateway = stack.enter_context(running("gateway", "--port", "0", "--triton-url", address, **settings))
        # Its supervisor would start another one.
        server.process.send_signal(signal.SIGSTOP)
        stack.callback(server.process.send_signal, signal.SIGCONT)
        triton.kill()
        yield gateway


def _address_and_key(triton: psutil.Process) -> tuple[str, str]:
    options = dict(option.split("=", 1) for option in triton.cmdline()[1:] if "=" in option)
    return f"127.0.0.1:{options['--grpc-port']}", options["--grpc-restricted-protocol"].split(":", 1)[1]


def requests_seen(gateway: Program, **labels: str) -> int:
    """How many API requests the gateway has answered, of those whose metric has these labels."""
    return int(
        sum(
            sample.value
            for sample in _samples(gateway)
            if sample.name == "tritonflare_requests_total" and labels.items() <= sample.labels.items()
        )
    )


def _samples(gateway: Program) -> Iterator[Sample]:
    text = httpx.get(f"{gateway.url}/metrics", timeout=10).text
    for family in text_string_to_metric_families(text):
        yield from family.samples


@contextmanager
def occupied(gateway: Program, triton: int) -> Iterator[Callable[[], None]]:
    """Hold the gateway's one place with a text that its Triton does not get to; yields what gives it back."""
    paused = psutil.Process(triton)
    paused.suspend()
    # On a busy machine its threads go on for a while, long enough for an answer.
    assert wait_until(lambda: _stands_still(triton), 10)
    answers: list[httpx.Response] = []
    call = Thread(target=lambda: answers.append(_classify(gateway)))
    call.start()
    try:
        assert wait_until(lambda: _in_flight(gateway) == 1, 10), (
            [(answer.status_code, answer.text) for answer in answers],
            gateway.lines[-20:],
        )
        yield paused.resume
    finally:
        paused.resume()
        call.join()


def _stands_still(process: int) -> bool:
    states = [
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{process}/task").iterdir()
    ]
    return set(states) == {"T"}


def _classify(gateway: Program) -> httpx.Response:
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.post(gateway.url + path, headers=headers, json={"text": TEXT}, timeout=60)


def _in_flight(gateway: Program) -> float:
    return next(
        sample.value for sample in _samples(gateway) if sample.name == "tritonflare_requests_in_flight"
    )


@contextmanager
def occupied_until_someone_is_refused(gateway: Program, triton: int) -> Iterator[None]:
    """Hold a place; give it back when the gateway has said that it is busy."""
    before = requests_seen(gateway, code="3040")
    over = Event()

    def watch(release: Callable[[], None]) -> None:
        wait_until(lambda: over.is_set() or requests_seen(gateway, code="3040") > before, 60)
        release()

    with occupied(gateway, triton) as release:
        watcher = Thread(target=watch, args=(release,))
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

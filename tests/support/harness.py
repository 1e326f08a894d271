"""The real gateway on a real port, and a client that sends bytes as told."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.access.tokens import TokenTable
from gateway.main import serve
from gateway.ports import Ports
from gateway.settings import Settings
from gateway.telemetry.access_log import FLUSH_S
from tests.support.fake_triton import SST2, FakeTriton

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "test-token-of-the-account"
ANY_TOKEN = "test-token-of-any-account"
RUN = f"/client/v4/accounts/{ACCOUNT}/ai/run/{SST2}"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def access_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the access log says of the requests so far; nothing else may be in it."""
    await asyncio.sleep(2 * FLUSH_S)
    lines = [line for line in capsys.readouterr().err.splitlines() if "tritonflare.access" in line]
    return [re.sub(r"^[\d-]+T[\d:.]+ INFO tritonflare\.access: ", "", line) for line in lines]


@dataclass
class Answer:
    """One HTTP response, byte for byte."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        if len(values) > 1:
            raise AssertionError(f"header {name} came {len(values)} times")
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["errors"][0]


@dataclass
class Client:
    """Speaks HTTP/1.1 over plain sockets, so that nothing normalises paths, headers or bodies."""

    port: int
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})
    tls: ssl.SSLContext | None = None
    source: str = "127.0.0.1"
    """Address to connect from."""

    async def open(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.port,
            ssl=self.tls,
            server_hostname="localhost" if self.tls is not None else None,
            local_addr=(self.source, 0),
        )
        sent = {"Host": "gateway", "Connection": "close"} | (self.headers if headers is None else headers)
        if body is not None and "Transfer-Encoding" not in sent:
            sent.setdefault("Content-Length", str(len(body)))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in sent.items())
        writer.write(head.encode("latin-1") + b"\r\n" + (body or b""))
        return reader, writer

    async def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        reader, writer = await self.open(method, path, body, headers)
        try:
            return await read_answer(reader)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def get(self, path: str) -> Answer:
        return await self.send("GET", path)

    async def run(self, payload: object, *, path: str = RUN, query: str = "") -> Answer:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return await self.send("POST", path + query, body)

    async def metric(self, sample: str) -> float:
        """Return one sample of /metrics, 0 if it is not there; ``sample`` is name{labels}."""
        for line in (await self.get("/metrics")).body.decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one response until the server closes the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip().split("\r\n")
    headers = [(key.lower(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    return Answer(int(status_line.split()[1]), headers, await reader.read())


def settings_for(triton: FakeTriton, **overrides: Any) -> Settings:
    """Return settings that make everything happen fast."""
    given: dict[str, Any] = {
        "port": 0,
        "triton_url": triton.url,
        "api_tokens": f"{ACCOUNT}:{TOKEN},*:{ANY_TOKEN}",
        "refresh_interval_s": 0.1,
        "retry_interval_s": 0.05,
        "triton_control_timeout_s": 0.5,
        "canary_timeout_s": 0.5,
        "canary_max_age_s": 2.0,
        "request_timeout_s": 5.0,
        "drain_timeout_s": 5,
    }
    given |= overrides
    given.setdefault("max_queue_s", min(2.0, given["request_timeout_s"] / 5))
    return Settings(**given)


@dataclass
class Running:
    """A gateway that serves."""

    client: Client
    stop: asyncio.Event
    task: asyncio.Task[None]
    grpc_port: int = 0


@asynccontextmanager
async def running_gateway(
    settings: Settings, *, wait_ready: bool = True, tokens: TokenTable | None = None
) -> AsyncIterator[Running]:
    """Serve in this event loop; shut down gracefully and wait for it at the end."""
    ports = Ports.bind(settings)
    port: int = ports.http.getsockname()[1]
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve(settings, ports=ports, on_started=ready.set_result, stop=stop, tokens=tokens), name="gateway"
    )
    try:
        if wait_ready:
            both: set[asyncio.Future[Any]] = {ready, task}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=10)
            if not ready.done():
                await task
                raise AssertionError("the gateway ended or never became ready")
        else:
            await until(lambda: listens(port))
        if settings.requests_per_minute:
            await asyncio.sleep(pause_before_a_rate_s())
        yield Running(Client(port), stop, task, ports.grpc.getsockname()[1] if ports.grpc else 0)
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


def pause_before_a_rate_s() -> float:
    """Seconds to wait before a rate is spent: its first places become free when the clock's minute ends."""
    left_s = 60 - time.time() % 60
    return left_s + 0.1 if left_s < 5 else 0.0


async def listens(port: int) -> bool:
    """Whether a server accepts connections on a port of 127.0.0.1."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Wait for a condition; fail when it never comes."""
    ends = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        if asyncio.get_running_loop().time() > ends:
            raise AssertionError("the condition never came true")
        await asyncio.sleep(0.02)


async def until_in_flight(client: Client, count: int) -> None:
    """Wait until the gateway has at least so many texts in hand."""

    async def there() -> bool:
        return await client.metric("tritonflare_requests_in_flight") >= count

    await until(there)

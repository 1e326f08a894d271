"""The gateway is told to end while it works."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded.server import RESTRICTED_KEY, TritonServer
from loadtest.checks import Scores, scores_of
from tests.faults.conftest import PATH
from tests.support.harness import ACCOUNT, TOKEN
from tests.support.load import Connections, Target, agrees, reference
from tests.support.paced_triton import stand_in
from tests.support.servers import Program, running
from tests.support.texts import sentences

pytestmark = pytest.mark.alone

CALLERS = 64


@contextmanager
def gateway(triton_url: str, **settings: str) -> Iterator[Program]:
    given = {"GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}", "GATEWAY_ACCESS_LOG_SHARE": "0", **settings}
    with running("gateway", "--port", "0", "--triton-url", triton_url, **given) as program:
        yield program


async def call_until_told(target: Target, answers: dict[str, Scores], place: int, seen: Counter[str]) -> None:
    """Ask on one connection until an answer says that it is the last; count what came."""
    host, port = target.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    texts = list(answers)
    try:
        while True:
            text = texts[place % len(texts)]
            place += 1
            writer.write(target.request(text))
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            right = agrees(scores_of(await reader.readexactly(length)), answers[text])
            seen["right" if head.startswith("http/1.1 200 ") and right else "wrong"] += 1
            if "connection: close" in head:
                seen["told"] += 1
                return
    except (OSError, EOFError):
        seen["broken"] += 1
    finally:
        writer.close()


def test_every_request_that_was_accepted_is_answered(real_triton: TritonServer) -> None:
    secret = {"GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={real_triton.secret}"}
    with gateway(real_triton.address, **secret) as program:
        target = Target(program.url, TOKEN, PATH)
        seen: Counter[str] = Counter()

        async def call_and_end() -> None:
            answers = await reference(target, sentences()[:64])
            calling = [
                asyncio.create_task(call_until_told(target, answers, place, seen)) for place in range(CALLERS)
            ]
            await asyncio.sleep(1.5)
            program.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*calling)

        asyncio.run(call_and_end())
        began = time.monotonic()
        assert program.process.wait(10) == 0
        print(dict(seen), f"exited {time.monotonic() - began:.2f} s after the last answer")
    assert seen["wrong"] == seen["broken"] == 0
    assert seen["told"] == CALLERS
    assert seen["right"] > 2 * CALLERS


def test_a_second_signal_ends_it_at_once() -> None:
    with (
        stand_in(0.25) as triton,
        gateway(
            triton,
            GATEWAY_CANARY_TIMEOUT_S="60",
            GATEWAY_CANARY_MAX_AGE_S="90",
            GATEWAY_REQUEST_TIMEOUT_S="60",
        ) as program,
    ):
        target = Target(program.url, TOKEN, PATH)

        async def ask_and_end() -> float:
            host, port = target.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(target.request("slow"))
            await asyncio.sleep(0.3)
            program.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert program.process.poll() is None  # it waits for the answer
            program.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            await asyncio.to_thread(program.process.wait, 10)
            writer.close()
            return time.monotonic() - began

        assert asyncio.run(ask_and_end()) < 2.5


_CLOCK = """
import sys, time, types
def jumping():
    return time.time() + float(open(sys.argv[1]).read())
names = {**vars(time), "time": jumping}
import gateway.telemetry.access_log, gateway.server.wire, gateway.access.tokens
for module in (gateway.telemetry.access_log, gateway.server.wire, gateway.access.tokens):
    module.time = types.SimpleNamespace(**names)
from gateway.main import run
from gateway.settings import load_settings
run(load_settings())
"""
"""The gateway with a wall clock that is off by what a file says; not that of gRPC, whose core has its own."""


def test_a_clock_that_jumps_expires_tokens_and_brings_none_back(tmp_path: Path) -> None:
    import os

    from gateway.access.tokens import hash_token
    from gateway.access.tokens_file import utc
    from tests.support.gateway_process import port_of

    offset, tokens, log = tmp_path / "offset", tmp_path / "tokens", tmp_path / "log"
    offset.write_text("0")

    def jump(seconds: float) -> None:
        new = tmp_path / "new"
        new.write_text(str(seconds))
        new.replace(offset)

    expires = time.time() + 6  # long enough for the gateway to start beside others
    soon = utc(expires)
    later = utc(time.time() + 3600)
    tokens.write_text(
        f"*:{hash_token('soon')}:{soon}\n*:{hash_token('later')}:{later}\n*:{hash_token('ever')}\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    with stand_in(1000) as triton, log.open("wb") as stderr:
        given = {"GATEWAY_PORT": "0", "GATEWAY_TRITON_URL": triton, "GATEWAY_TOKENS_FILE": str(tokens)}
        process = subprocess.Popen(
            [sys.executable, "-c", _CLOCK, str(offset)], env=kept | given, stderr=stderr
        )
        try:
            url = f"http://127.0.0.1:{port_of(process, log)}"

            def statuses() -> list[int]:
                return [asyncio.run(status(Target(url, token, PATH))) for token in ("soon", "later", "ever")]

            assert statuses() == [200, 200, 200]
            time.sleep(max(0.0, expires + 0.1 - time.time()))
            assert statuses() == [401, 200, 200]
            jump(-86_400)
            assert statuses() == [401, 200, 200]
            jump(86_400)
            assert statuses() == [401, 401, 200]
            jump(0)
            assert statuses() == [401, 200, 200]
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in log.read_text()


async def status(target: Target) -> int:
    connections = Connections(target)
    try:
        found, body = await connections.exchange(target.request("a"))
        assert found == 200 or b'"code":10000' in body
        return found
    finally:
        connections.close()

"""Lines of JSON: what fields a whole program's lines have, and what is in none of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.contract.test_operations import PROGRAM
from tests.support.fake_triton import SST2, FakeTriton, fail
from tests.support.harness import ACCOUNT, RUN, TOKEN, Client, until

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "observability.md"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Program:
    """A gateway in a process of its own that logs in JSON."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.client = Client(0)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def text(self) -> str:
        return self._log.read_text()

    def of(self, logger: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["logger"] == logger]


@asynccontextmanager
async def program(triton: FakeTriton, tmp_path: Path, **settings: str) -> AsyncIterator[Program]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {
        "GATEWAY_PORT": "0",
        "GATEWAY_TRITON_URL": triton.url,
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_LOG_FORMAT": "json",
        "GATEWAY_RETRY_INTERVAL_S": "0.1",
    } | settings
    log = tmp_path / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM], env=environment, stderr=stderr, cwd=ROOT
        )
    try:
        found = Program(log)

        async def started() -> bool:
            assert process.poll() is None, log.read_text()
            return "serving on" in log.read_text()

        await until(started, 20)
        found.client.port = int(re.findall(r"serving on http://127\.0\.0\.1:(\d+)/", found.text())[0])
        yield found
        process.terminate()
        assert await asyncio.to_thread(process.wait, 10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def documented_fields() -> set[str]:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## JSON logs")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


async def test_every_line_is_an_object_with_the_documented_fields(triton: FakeTriton, tmp_path: Path) -> None:
    async with program(triton, tmp_path) as running:
        client = running.client
        answer = await client.run({"text": "a private text"})
        refused = await client.send("POST", RUN, b"{}", {"Authorization": "Bearer private-token"})
        triton.infer_fault = fail(grpc.StatusCode.INTERNAL, "private words of Triton")
        assert (await client.run({"text": "a private text"})).status == 500

        async def not_ready() -> bool:
            return "not ready" in running.text()

        await until(not_ready)
    lines = running.lines()
    assert all(TIME.fullmatch(line["time"]) for line in lines)
    assert {key for line in lines for key in line} <= documented_fields()
    good, unknown, failed = running.of("tritonflare.access")
    assert good.pop("time")
    assert good.pop("ms") >= good.pop("queue_ms") + good["triton_ms"] - 0.2
    assert good.pop("triton_ms") > 0
    assert good == {
        "level": "info",
        "logger": "tritonflare.access",
        "method": "POST",
        "route": "/client/v4/accounts/{account_id}/ai/run/{model}",
        "status": 200,
        "code": 0,
        "ray": answer.header("cf-ray"),
        "model": SST2,
        "version": answer.header("x-model-version"),
        "id": answer.header("cf-ai-req-id"),
    }
    assert (unknown["status"], unknown["code"], unknown["ray"]) == (401, 10000, refused.header("cf-ray"))
    assert {"id", "queue_ms", "triton_ms"}.isdisjoint(unknown)
    assert (failed["status"], failed["code"]) == (500, 8007)
    (warning,) = [line for line in running.of("tritonflare.monitor") if line["level"] == "warning"]
    assert warning["message"] == f"not ready: no canary answer from {SST2}"
    assert "private" not in running.text()


async def test_several_workers_log_in_json_too(triton: FakeTriton, tmp_path: Path) -> None:
    async with program(triton, tmp_path, GATEWAY_WORKERS="2") as running:
        assert (await running.client.run({"text": "a"})).status == 200
    assert len(running.of("tritonflare.access")) == 1
    assert all(TIME.fullmatch(line["time"]) for line in running.lines())

"""The gateway with several workers as processes of their own, before a fake Triton in this event loop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.fake_triton import FakeTriton
from tests.support.harness import ACCOUNT, TOKEN, until

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "tritonflare", "gateway", "--workers", "2"]
_SERVING = re.compile(r"serving on https?://127\.0\.0\.1:(\d+)/client/v4$", re.MULTILINE)


@dataclass
class Supervised:
    """A gateway that serves with workers."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    scratch: Path
    """The folder for temporary files."""

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that it has started to serve."""
        return [child for child in psutil.Process(self.process.pid).children() if _serves(child)]

    def listens(self, worker: psutil.Process) -> bool:
        return any(
            found.status == psutil.CONN_LISTEN and found.laddr.port == self.port
            for found in worker.net_connections()
        )

    def connections(self, worker: psutil.Process) -> int:
        """How many callers are connected to it."""
        return sum(
            found.status == psutil.CONN_ESTABLISHED and found.laddr.port == self.port
            for found in worker.net_connections()
        )

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 15)


def _serves(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def environment_of(triton: FakeTriton, scratch: Path, **settings: str) -> dict[str, str]:
    """What such a gateway is started with, everything fast."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return kept | {
        "TMPDIR": str(scratch),
        "GATEWAY_PORT": "0",
        "GATEWAY_TRITON_URL": triton.url,
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_REFRESH_INTERVAL_S": "0.1",
        "GATEWAY_RETRY_INTERVAL_S": "0.05",
        **settings,
    }


@asynccontextmanager
async def supervised_gateway(
    triton: FakeTriton, tmp_path: Path, **settings: str
) -> AsyncIterator[Supervised]:
    """Start it on a free port; at the end nothing of it may be left."""
    log, scratch = tmp_path / "stderr", tmp_path / "scratch"
    scratch.mkdir()
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            COMMAND, env=environment_of(triton, scratch, **settings), stderr=stderr, cwd=ROOT
        )
    family: list[psutil.Process] = []
    try:

        async def started() -> bool:
            assert process.poll() is None, log.read_text()
            return _SERVING.search(log.read_text()) is not None

        await until(started, 30)
        found = _SERVING.search(log.read_text())
        assert found
        running = Supervised(process, int(found[1]), log, scratch)
        family = psutil.Process(process.pid).children(recursive=True)
        yield running
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            assert await running.stop() == 0, log.read_text()
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, 10)
        assert alive == []
        assert list(scratch.iterdir()) == []
        text = log.read_text()
        assert "Traceback" not in text
        assert "Warning" not in text
        assert TOKEN not in text
    finally:
        process.kill()
        process.wait()
        for left in family:
            with suppress(psutil.NoSuchProcess):
                left.kill()

"""``tritonflare serve`` with the bundled model, what is right, and half of the load that it can carry."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from loadtest.checks import Scores
from loadtest.closed_loop import over_http
from tests.support.bundled import bundled_repository
from tests.support.load import Target, reference
from tests.support.servers import ACCOUNT, TOKEN, Program, running
from tests.support.texts import sentences

MODEL = "@cf/huggingface/distilbert-sst-2-int8"
PATH = f"/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
DEADLINE_S = 4.0
_METRIC = re.compile(r'^tritonflare_triton_restarts_total\{reason="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Served:
    """A running ``tritonflare serve``."""

    program: Program
    target: Target
    start_s: float
    """How long it took to start, on this machine and beside what else runs here."""

    def triton(self) -> psutil.Process:
        return next(child for child in self.program.children() if child.name() == "tritonserver")

    def stubs(self) -> dict[str, psutil.Process]:
        """The python stubs by the model that they run."""
        found = (child for child in self.program.children() if child.name().startswith("triton_python"))
        return {Path(stub.cmdline()[1]).parts[-3]: stub for stub in found}

    def stub(self, model: str) -> psutil.Process:
        return next(stub for name, stub in self.stubs().items() if model in name)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.program.url + path, timeout=10)

    def restarts(self) -> dict[str, int]:
        """Restarts by reason, those that happened."""
        found = _METRIC.findall(self.get("/metrics").text)
        assert len(found) == 4
        return {reason: int(float(value)) for reason, value in found if float(value)}


@contextmanager
def serving(repository: Path, *options: str, **settings: str) -> Iterator[Served]:
    """Serve a repository; nothing may be left behind at the end."""
    given = {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_REQUEST_TIMEOUT_S": str(DEADLINE_S),
        "GATEWAY_ACCESS_LOG_SHARE": "0",
        **settings,
    }
    deadline_s = float(given["GATEWAY_REQUEST_TIMEOUT_S"])
    began = time.monotonic()
    with running("serve", "--port", "0", "--repository", str(repository), *options, **given) as program:
        start_s = time.monotonic() - began
        yield Served(program, Target(program.url, TOKEN, PATH, deadline_s), start_s)
        if program.process.poll() is None:
            found = Path("/dev/shm").glob(f"tritonflare_{program.process.pid}_*")
            regions = [path for path in found if not path.name.endswith("_lock")]
            stubs = [child for child in program.children() if child.name().startswith("triton_python")]
            assert len(regions) <= len(stubs), "regions of a Triton that is gone are left"
        assert "Traceback" not in program.output


@pytest.fixture(scope="session")
def answers() -> dict[str, Scores]:
    """What is right, by text; of a server that has nothing else to do."""
    with serving(bundled_repository()) as served:
        return asyncio.run(reference(served.target, sentences()[:64]))


@pytest.fixture(scope="session")
def half(answers: dict[str, Scores]) -> float:
    """Half of the requests a second that this machine can answer just now."""
    with serving(bundled_repository()) as served:
        return over_http(served.target, list(answers), 32, 1.5)["rate"] / 2


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the bundled model's repository."""
    return Path(shutil.copytree(bundled_repository(), tmp_path / "models"))

"""The real gateway as a process of its own, before the real Triton or a fake one.

For programs that drive the gateway from outside: their work must not share its event loop.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.fake_triton import FakeEnsemble, FakeTriton
from tests.support.harness import ACCOUNT, ANY_TOKEN, TOKEN
from tests.support.servers import wait_until

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
from gateway.main import run
from gateway.settings import load_settings
run(load_settings())
"""
_SERVING = re.compile(r"serving on http://127\.0\.0\.1:(\d+)/client/v4$", re.MULTILINE)


@contextmanager
def triton_in_a_thread(fake: FakeTriton) -> Iterator[FakeTriton]:
    """Let ``fake`` listen until the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake triton")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.appear(), loop).result(10)
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(fake.disappear(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def gateway_before_fake(log: Path, *more: FakeEnsemble, **settings: str) -> Iterator[int]:
    """Run the gateway before a fake Triton with ``more`` ensembles, as ``gateway_process`` does."""
    fake = FakeTriton()
    fake.ensembles += more
    with (
        triton_in_a_thread(fake) as triton,
        gateway_process(log, GATEWAY_TRITON_URL=triton.url, **settings) as port,
    ):
        yield port


@contextmanager
def gateway_before_real(log: Path, triton: TritonServer, **settings: str) -> Iterator[int]:
    """Run the gateway before the real Triton, as ``gateway_process`` does."""
    reached = {
        "GATEWAY_TRITON_URL": triton.address,
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
    }
    try:
        with gateway_process(log, **reached, **settings) as port:
            yield port
    finally:
        assert triton.poll() is None, "Triton has ended"


@contextmanager
def gateway_process(log: Path, **settings: str) -> Iterator[int]:
    """Run the gateway; give its port. Its log must not show a defect at the end."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    given |= {"GATEWAY_PORT": "0", "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN},*:{ANY_TOKEN}"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _PROGRAM], env=given | settings, stderr=stderr, cwd=_ROOT
        )
        try:
            yield port_of(process, log)
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)
    assert "Traceback" not in log.read_text()


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    wait_until(lambda: process.poll() is not None or bool(_SERVING.search(log.read_text())), 30)
    found = _SERVING.search(log.read_text())
    assert found, f"the gateway ended or never became ready: {log.read_text()}"
    return int(found[1])

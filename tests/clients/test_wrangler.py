"""``wrangler dev`` with nothing but environment variables set."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.clients.checks import MODEL, TEXT, UUID, check_scores
from tests.support.clients.node import JS, environment, example
from tests.support.servers import ACCOUNT, TOKEN, Program

READY_S = 90
WRANGLER = JS / "node_modules" / "wrangler" / "bin" / "wrangler.js"
_READY = re.compile(r"Ready on (http://\S+)")


@contextmanager
def wrangler_dev(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """``wrangler dev`` in ``folder`` until the end of the block; yields its address."""
    lines: list[str] = []
    found: list[str] = []
    settled = threading.Event()
    process = subprocess.Popen(
        ["node", str(WRANGLER), "dev", "--port", "0", "--inspector-port", "0"],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if match := _READY.search(line):
                found.append(match[1])
                settled.set()
        settled.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        settled.wait(READY_S)
        assert found, "wrangler did not become ready:\n" + "".join(lines)
        yield found[0]
    finally:
        stop(process)
        reader.join(10)
        assert process.stdout is not None
        process.stdout.close()


def stop(process: subprocess.Popen[str]) -> None:
    """End wrangler and everything below it, by process id."""
    everything = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    _, alive = psutil.wait_procs(everything, timeout=10)
    for child in alive:
        child.kill()
    process.wait(10)


def variables(gateway: Program, token: str) -> dict[str, str]:
    return {
        "CLOUDFLARE_API_BASE_URL": f"{gateway.url}/client/v4",
        "CLOUDFLARE_API_TOKEN": token,
        "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
    }


@pytest.mark.parametrize("worker", ["src/index.ts", "src/native.ts"])
def test_the_example_runs_under_wrangler_as_it_stands(tmp_path: Path, gateway: Program, worker: str) -> None:
    folder = example(tmp_path)
    config = folder / "wrangler.toml"
    config.write_text(config.read_text().replace("src/index.ts", worker))
    with wrangler_dev(folder, environment(tmp_path, **variables(gateway, TOKEN))) as url:
        check_scores(httpx.get(url, timeout=30).json())


def test_errors_ids_and_models_come_through_wrangler(tmp_path: Path, gateway: Program) -> None:
    folder = example(tmp_path)
    (folder / "src/index.ts").write_text((JS / "report.mjs").read_text())
    with wrangler_dev(folder, environment(tmp_path, **variables(gateway, TOKEN))) as url:
        seen = httpx.post(url, json={"run": [MODEL, {}]}, timeout=30).json()
        assert seen["error"] == {
            "name": "AiError",
            "message": "5006: Error: required properties at '/' are 'text'",
        }
        seen = httpx.post(url, json={"run": [MODEL, {"text": TEXT}]}, timeout=30).json()
        check_scores(seen["result"])
        assert UUID.fullmatch(seen["lastRequestId"])
        listed = httpx.post(url, json={"native": True, "models": {"page": 1}}, timeout=30).json()
        assert MODEL in [model["name"] for model in listed["result"]]


@pytest.mark.parametrize("version", ["1.1.0", "1.0.53"])
def test_older_packages_work_under_wrangler(tmp_path: Path, gateway: Program, version: str) -> None:
    folder = example(tmp_path)
    source = (JS / "report.mjs").read_text().replace("@cloudflare/ai", f"ai-{version}")
    (folder / "src/index.ts").write_text(source)
    with wrangler_dev(folder, environment(tmp_path, **variables(gateway, TOKEN))) as url:
        seen = httpx.post(url, json={"run": [MODEL, {"text": TEXT}]}, timeout=30).json()
        check_scores(seen["result"])
        assert UUID.fullmatch(seen["lastRequestId"])


def test_a_wrong_token_reaches_the_worker_as_an_error(tmp_path: Path, gateway: Program) -> None:
    folder = example(tmp_path)
    (folder / "src/index.ts").write_text((JS / "report.mjs").read_text())
    with wrangler_dev(folder, environment(tmp_path, **variables(gateway, "wrong"))) as url:
        seen = httpx.post(url, json={"run": [MODEL, {"text": TEXT}]}, timeout=30).json()
    assert seen["error"] == {"name": "InferenceUpstreamError", "message": "10000: Authentication error"}

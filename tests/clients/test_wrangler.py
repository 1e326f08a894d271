"""``wrangler dev`` 3 with nothing but environment variables set."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support.clients.checks import MODEL, TEXT, UUID, check_scores
from tests.support.clients.node import JS, environment, example
from tests.support.clients.wrangler import wrangler_dev
from tests.support.servers import ACCOUNT, TOKEN, Program

WRANGLER = JS / "node_modules" / "wrangler" / "bin" / "wrangler.js"
CONFIG = "wrangler3.toml"


def dev(folder: Path, env: dict[str, str]) -> AbstractContextManager[str]:
    """``wrangler dev`` with the example's configuration for wrangler 3; yields its address."""
    return wrangler_dev(["node", str(WRANGLER), "dev", "-c", CONFIG], folder, env)


def variables(gateway: Program, token: str) -> dict[str, str]:
    return {
        "CLOUDFLARE_API_BASE_URL": f"{gateway.url}/client/v4",
        "CLOUDFLARE_API_TOKEN": token,
        "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
    }


@pytest.mark.parametrize("worker", ["src/index.ts", "src/native.ts"])
def test_the_example_runs_under_wrangler_as_it_stands(tmp_path: Path, gateway: Program, worker: str) -> None:
    folder = example(tmp_path)
    config = folder / CONFIG
    config.write_text(config.read_text().replace("src/index.ts", worker))
    with dev(folder, environment(tmp_path, **variables(gateway, TOKEN))) as url:
        check_scores(httpx.get(url, timeout=30).json())


def test_errors_ids_and_models_come_through_wrangler(tmp_path: Path, gateway: Program) -> None:
    folder = example(tmp_path)
    (folder / "src/index.ts").write_text((JS / "report.mjs").read_text())
    with dev(folder, environment(tmp_path, **variables(gateway, TOKEN))) as url:
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
    with dev(folder, environment(tmp_path, **variables(gateway, TOKEN))) as url:
        seen = httpx.post(url, json={"run": [MODEL, {"text": TEXT}]}, timeout=30).json()
        check_scores(seen["result"])
        assert UUID.fullmatch(seen["lastRequestId"])


def test_a_wrong_token_reaches_the_worker_as_an_error(tmp_path: Path, gateway: Program) -> None:
    folder = example(tmp_path)
    (folder / "src/index.ts").write_text((JS / "report.mjs").read_text())
    with dev(folder, environment(tmp_path, **variables(gateway, "wrong"))) as url:
        seen = httpx.post(url, json={"run": [MODEL, {"text": TEXT}]}, timeout=30).json()
    assert seen["error"] == {"name": "InferenceUpstreamError", "message": "10000: Authentication error"}

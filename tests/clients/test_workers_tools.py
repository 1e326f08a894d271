"""Today's other Workers tools: Vite, vitest, miniflare 5, and wrangler's commands about models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.checks import MODEL, TEXT, check_scores
from tests.support.clients.node import LATEST, require_latest, run_tool
from tests.support.clients.shim import WRANGLER, put_project, run_program, tools
from tests.support.servers import ACCOUNT, TOKEN, Program

WITHOUT_NODE = True
"""These tools bring a node of their own."""

GOOD: dict[str, Any] = {"run": [MODEL, {"text": TEXT}]}
BAD: dict[str, Any] = {"run": [MODEL, {}]}
ERROR = {"name": "AiError", "message": "5006: Error: required properties at '/' are 'text'"}


@pytest.fixture(scope="module")
def node() -> str:
    return require_latest()


@pytest.fixture(scope="module")
def project(node: str, tmp_path_factory: pytest.TempPathFactory, gateway: Program) -> Path:
    return put_project(tmp_path_factory.mktemp("project") / "project", gateway.url)


def test_the_vite_plugin_runs_the_shim_as_an_auxiliary_worker(
    node: str, project: Path, tmp_path: Path
) -> None:
    requests = [{"within": within, "calls": [GOOD, BAD]} for within in ("worker", "object")]
    answers = run_program(node, tmp_path, "vite.mjs", root=str(project), requests=requests)
    for good, bad in answers:
        check_scores(good["result"])
        assert bad["error"] == ERROR


def test_the_binding_works_in_vitest_s_workers_pool(node: str, project: Path, tmp_path: Path) -> None:
    vitest = LATEST / "node_modules" / "vitest" / "vitest.mjs"
    assert "4 passed" in run_tool(node, project, str(vitest), "run", env=tools(tmp_path))


def test_miniflare_5_takes_the_options_of_miniflare_4(
    node: str, tmp_path: Path, open_gateway: Program
) -> None:
    calls = [GOOD, BAD, {"models": {}}]
    good, bad, models = run_program(node, tmp_path, "miniflare.mjs", gateway=open_gateway.url, calls=calls)
    check_scores(good["result"])
    assert bad["error"] == ERROR
    assert [model["name"] for model in models["result"]] == [MODEL]


def test_wrangler_lists_models_and_their_schemas(node: str, tmp_path: Path, gateway: Program) -> None:
    variables = {
        "CLOUDFLARE_API_BASE_URL": f"{gateway.url}/client/v4",
        "CLOUDFLARE_API_TOKEN": TOKEN,
        "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
    }

    def printed(*arguments: str) -> str:
        command = [str(WRANGLER), "ai", "models", *arguments]
        return run_tool(node, tmp_path, *command, env=tools(tmp_path, **variables))

    assert re.search(rf"│ {re.escape(MODEL)} +│ .* │ Text Classification +│", printed("list"))
    (model,) = json.loads(printed("list", "--json"))
    assert model["name"] == MODEL
    schema = json.loads(printed("schema", MODEL))
    assert schema["input"]["required"] == ["text"]
    assert schema["output"]["type"] == "array"

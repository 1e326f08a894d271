"""The deployment after the first `up`: the documented command, the samples and the SDKs get right answers."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudflare
import pytest

from tests.support.clients.node import JS, environment, node, require_node
from tests.support.containers.deployment import ACCOUNT, MODEL, Deployment

SAMPLES = Path(__file__).parents[1] / "samples"
TEXT = "This pizza is great!"


def check(result: list[dict[str, Any]]) -> None:
    assert [entry["label"] for entry in result] == ["NEGATIVE", "POSITIVE"]
    assert result[1]["score"] > 0.9
    assert math.isclose(sum(entry["score"] for entry in result), 1, abs_tol=1e-9)


def test_the_documented_command_is_answered(deployment: Deployment) -> None:
    url = f"{deployment.gateway_url()}/client/v4/accounts/me/ai/run/{MODEL}"
    command = ["curl", "--silent", url, "-H", f"Authorization: Bearer {deployment.token}"]
    done = subprocess.run([*command, "-d", '{"text":"What a lovely day"}'], capture_output=True, check=True)
    check(json.loads(done.stdout)["result"])


@pytest.mark.parametrize(
    "command", [("bash", "sample.sh"), (sys.executable, "sample.py"), ("node", "sample.mjs")]
)
def test_the_samples_of_the_documentation_are_answered(
    deployment: Deployment, command: tuple[str, str]
) -> None:
    program, sample = command
    if program == "node":
        require_node()
    values = {
        "API_BASE": f"{deployment.gateway_url()}/client/v4",
        "ACCOUNT_ID": ACCOUNT,
        "API_TOKEN": deployment.token,
    }
    done = subprocess.run(
        [program, str(SAMPLES / sample)],
        env=os.environ | values,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    check((ast.literal_eval if sample == "sample.py" else json.loads)(done.stdout)["result"])


def test_the_sdk_for_python_is_answered(deployment: Deployment) -> None:
    base_url = f"{deployment.gateway_url()}/client/v4"
    with cloudflare.Cloudflare(api_token=deployment.token, base_url=base_url) as client:
        result: Any = client.ai.run(MODEL, account_id=ACCOUNT, text=TEXT)
    check([entry.to_dict() for entry in result])


def test_the_sdk_for_javascript_is_answered(deployment: Deployment, tmp_path: Path) -> None:
    require_node()
    options = {"apiToken": deployment.token, "baseURL": f"{deployment.gateway_url()}/client/v4"}
    calls = [["ai.run", MODEL, {"account_id": ACCOUNT, "text": TEXT}]]
    stdin = json.dumps({"options": options, "calls": calls})
    (seen,) = json.loads(node(JS, "sdk.mjs", stdin=stdin, env=environment(tmp_path)))
    check(seen["result"])

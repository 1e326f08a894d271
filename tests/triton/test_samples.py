"""The samples of the documentation page, with only the base URL, account and token filled in."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import ACCOUNT, TOKEN, Program

pytestmark = pytest.mark.needs_triton

SAMPLES = Path(__file__).parents[1] / "samples"


def run(gateway: Program, *command: str) -> str:
    if shutil.which(command[0]) is None:
        assert "CI" not in os.environ, f"CI must have {command[0]}"
        pytest.skip(f"{command[0]} is not installed")
    values = {"API_BASE": f"{gateway.url}/client/v4", "ACCOUNT_ID": ACCOUNT, "API_TOKEN": TOKEN}
    done = subprocess.run(
        command, env=os.environ | values, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def check(body: Any) -> None:
    assert list(body) == ["result", "success", "errors", "messages"]
    assert [entry["label"] for entry in body["result"]] == ["NEGATIVE", "POSITIVE"]
    assert math.isclose(sum(entry["score"] for entry in body["result"]), 1, abs_tol=1e-9)


def test_the_curl_sample_works(gateway: Program) -> None:
    check(json.loads(run(gateway, "bash", str(SAMPLES / "sample.sh"))))


def test_the_python_sample_works(gateway: Program) -> None:
    check(ast.literal_eval(run(gateway, sys.executable, str(SAMPLES / "sample.py"))))


def test_the_javascript_sample_works(gateway: Program) -> None:
    check(json.loads(run(gateway, "node", str(SAMPLES / "sample.mjs"))))

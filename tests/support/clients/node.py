"""Run programs of the JavaScript clients with what `make clients` installs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

JS = Path(__file__).parents[2] / "clients" / "js"
LATEST = JS.with_name("js-latest")
"""Today's tools, which cannot be installed beside those of `JS`."""
EXAMPLE = Path(__file__).parents[3] / "examples" / "worker"
PROGRAM_S = 90
"""Longest time that a program may take; workerd's start is most of it."""


def require_node() -> None:
    """Skip where node or the packages are missing; where they must be there, fail."""
    if shutil.which("node") is None:
        missing("node is not installed")
    elif not (JS / "node_modules" / "miniflare").is_dir():
        missing("the JavaScript clients are not installed: make clients")


def require_latest() -> str:
    """Return the node that runs what is in `LATEST`; skip or fail as `require_node` does.

    These tools need node 22. It comes as a package with them, because Debian 12 has an older one.
    """
    packaged = sorted(LATEST.glob("node_modules/node-*/bin/node"))
    program = str(packaged[0]) if packaged else shutil.which("node")
    if program is None:
        missing("node is not installed")
    elif not (LATEST / "node_modules" / "wrangler").is_dir():
        missing("today's Workers tools are not installed: make clients")
    return str(program)


def missing(reason: str) -> None:
    """Skip the test for this reason; in CI, and with TRITONFLARE_REQUIRE_NODE=1, fail it."""
    if "CI" in os.environ or os.environ.get("TRITONFLARE_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def environment(home: Path, **values: str) -> dict[str, str]:
    """The environment for a client: nothing of this machine's settings for gateway or wrangler."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GATEWAY", "CLOUDFLARE_", "CF_"))
    }
    return inherited | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "NO_COLOR": "1"} | values


def node(folder: Path, *arguments: str, stdin: str = "", env: dict[str, str]) -> str:
    """Run ``node ARGUMENTS`` to its end and return what it printed."""
    return run_tool("node", folder, *arguments, stdin=stdin, env=env)


def run_tool(node: str, folder: Path, *command: str, stdin: str = "", env: dict[str, str]) -> str:
    """Run a program of node to its end; what it printed on standard output."""
    done = subprocess.run(
        [node, *command],
        cwd=folder,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def drive(home: Path, calls: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    """Let the Worker report.mjs make ``calls`` under miniflare; see drive.mjs for the options."""
    given = {"ai": "@cloudflare/ai", "token": None} | options | {"calls": calls}
    answers: list[dict[str, Any]] = json.loads(
        node(JS, "drive.mjs", stdin=json.dumps(given), env=environment(home))
    )
    return answers


def example(home: Path, packages: Path = JS) -> Path:
    """A copy of the example project, unmodified, with the packages of the tests beside it."""
    return copy(EXAMPLE, home / "worker", packages)


def copy(source: Path, folder: Path, packages: Path | None = None) -> Path:
    """Copy what git has of a project, and give it the packages of the tests."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("node_modules", ".wrangler", ".dev.vars"))
    if packages:
        (folder / "node_modules").symlink_to(packages / "node_modules")
    return folder

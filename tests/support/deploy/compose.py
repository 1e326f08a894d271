"""Reads the compose files as an engine would: merged and interpolated by podman-compose, which needs none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
BASE = ROOT / "docker-compose.yml"
CPU = ROOT / "docker-compose.cpu.yml"
GRPC = ROOT / "docker-compose.grpc.yml"
PROFILES = ("monitoring", "loadtest")
SECRET = "a-secret-of-the-tests"
# podman-compose asks podman for its version before anything else, and nothing more for `config`.
_PODMAN = "#!/bin/sh\necho 'podman version 5.0.0'\n"


def merged(folder: Path, *files: Path, **variables: str) -> dict[str, Any]:
    """The whole configuration with all profiles.

    Args:
        folder: for files that this needs.
        files: the compose files, later ones win.
        variables: what stands in ``.env``.

    Raises:
        ValueError: podman-compose refuses the files.
    """
    podman = folder / "podman"
    podman.write_text(_PODMAN)
    podman.chmod(0o755)
    env = folder / "env"
    env.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    command = [sys.executable, "-m", "podman_compose", f"--env-file={env}"]
    command += [f"--file={file}" for file in files] + [f"--profile={profile}" for profile in PROFILES]
    found = subprocess.run(
        [*command, "config"],
        cwd=ROOT,
        env={"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if found.returncode:
        raise ValueError(found.stderr)
    configuration: dict[str, Any] = yaml.safe_load(found.stdout)
    return configuration


@cache
def raw(file: Path) -> dict[str, Any]:
    """One compose file as it stands, aliases and merge keys resolved, without what ``!reset`` takes away."""
    configuration: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    return configuration


class _Loader(yaml.SafeLoader):
    """YAML with compose's own tag."""


_Loader.add_constructor("!reset", lambda loader, node: {})


def interpolated(values: list[str], variables: Mapping[str, str]) -> list[str]:
    """Put variables of the form ``${NAME…}`` into ``values``; each must be given."""
    out = []
    for value in values:
        done = value
        for name, text in variables.items():
            start = done.find(f"${{{name}")
            if start >= 0:
                done = done[:start] + text + done[done.index("}", start) + 1 :]
        out.append(done)
    return out


def triton_command() -> list[str]:
    """How compose starts Triton, the secret put in."""
    return interpolated(raw(BASE)["services"]["triton"]["command"], {"TRITON_SECRET": SECRET})

"""docker/env.sh and docker/check.sh, before a `docker` that only prints versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import ROOT

_FAKE_DOCKER = """\
#!/bin/sh
case "$*" in
version*) {engine} ;;
"compose version"*) {compose} ;;
esac
"""
ENOUGH = "echo 20.10.24+dfsg1", "echo 2.26.1-4"


def environment(folder: Path, engine: str | None = None, compose: str = "exit 1") -> dict[str, str]:
    """A PATH with the few programs that the scripts need, and with a ``docker`` unless engine is None."""
    folder.mkdir()
    for program in ("sh", "awk", "cat", "dirname", "od", "tr"):
        (folder / program).symlink_to(str(shutil.which(program)))
    if engine is not None:
        (folder / "docker").write_text(_FAKE_DOCKER.format(engine=engine, compose=compose))
        (folder / "docker").chmod(0o755)
    return os.environ | {"PATH": str(folder)}


def run(script: str, folder: Path, env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "docker" / script), *options]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("options", "files_named"),
    [
        ([], ""),
        (["--cpu"], "cpu"),
        (["--grpc"], "grpc"),
        (["--cpu", "--grpc"], "cpu grpc"),
        (["--grpc", "--cpu"], "cpu grpc"),
    ],
)
def test_the_script_writes_secrets_that_are_new_private_and_never_overwritten(
    tmp_path: Path, options: list[str], files_named: str
) -> None:
    env = environment(tmp_path / "bin", *ENOUGH)
    written = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = run("env.sh", folder, env, *options)
        assert (found.returncode, found.stderr) == (0, "")
        values = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
        assert (folder / ".env").stat().st_mode & 0o777 == 0o600
        files = ["docker-compose.yml", *(f"docker-compose.{name}.yml" for name in files_named.split())]
        assert values["COMPOSE_FILE"] == ":".join(files)
        assert [name for name in files if not (ROOT / name).is_file()] == []
        assert values["GATEWAY_API_TOKENS"] == f"*:{values['LOADTEST_TOKEN']}"
        assert values["TRITON_SECRET"] not in found.stdout
        assert run("env.sh", folder, env, *options).returncode == 1
        written.append(values)
    assert len({values[name] for values in written for name in ("TRITON_SECRET", "LOADTEST_TOKEN")}) == 4


@pytest.mark.parametrize(
    ("engine", "compose"),
    [
        ("20.10.0", "2.24.4"),
        ("20.10.24+dfsg1", "2.26.1-4"),
        ("29.0.0-rc.1", "v2.24.4-desktop.1"),
        ("28.5.1", "5.0.0"),
        ("20.11.0", "2.100.0"),
    ],
)
def test_versions_that_can_run_the_files_pass_without_output(
    tmp_path: Path, engine: str, compose: str
) -> None:
    found = run("check.sh", tmp_path, environment(tmp_path / "bin", f"echo {engine}", f"echo {compose}"))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("engine", "compose", "mentioned"),
    [
        (None, "", ["docker was not found", "20.10", "2.24.4", "install"]),
        # What the client prints without an engine: an empty line, and the reason on the other stream.
        ("echo; echo 'Cannot connect' >&2; exit 1", "echo 2.26.1", ["no engine", "docker info"]),
        ("echo 20.9.12", "echo 2.26.1", ["Engine 20.9.12", "20.10", "upgrade"]),
        ("echo 19.03.15", "echo 2.26.1", ["Engine 19.03.15", "20.10", "upgrade"]),
        ("echo 25.0.1", "echo 'unknown command' >&2; exit 1", ["no compose plugin", "2.24.4", "install"]),
        ("echo 25.0.1", "echo 2.24.3", ["Compose 2.24.3", "2.24.4", "upgrade"]),
        ("echo 25.0.1", "echo v2.9.14", ["Compose v2.9.14", "2.24.4", "upgrade"]),
        ("echo 25.0.1", "echo 1.29.2", ["Compose 1.29.2", "2.24.4", "upgrade"]),
    ],
)
def test_a_docker_that_cannot_run_the_files_gets_one_sentence_and_no_env_file(
    tmp_path: Path, engine: str | None, compose: str, mentioned: list[str]
) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    found = run("env.sh", folder, environment(tmp_path / "bin", engine, compose), "--cpu")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert [word for word in mentioned if word not in found.stderr] == []
    assert list(folder.iterdir()) == []


def test_an_unknown_option_gets_the_usage_and_no_env_file(tmp_path: Path) -> None:
    found = run("env.sh", tmp_path, environment(tmp_path / "bin", *ENOUGH), "--cpu", "--gpu")
    assert (found.returncode, found.stderr) == (2, "usage: sh docker/env.sh [--cpu] [--grpc]\n")
    assert not (tmp_path / ".env").exists()

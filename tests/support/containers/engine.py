"""The engine that runs the tests' containers: the one that is here, else a private one while they run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import required
from tests.support.servers import wait_until

_DEPLOYMENT = (
    "COMPOSE_",
    "EXPORT_",
    "GATEWAY_",
    "LOADTEST_",
    "REPLICAS_",
    "TRITON_",
    "IMAGE_PREFIX",
    "PUBLISH",
)
BUILDKIT = {"DOCKER_BUILDKIT": "1"}
"""The environment of builds; Docker 20.10 would use its older builder."""
_HINT = "needs a container engine; .ci/container-tools installs one"


class CommandFailed(Exception):
    """A command of the engine ended with another status than 0; the message has its output."""


@dataclass(frozen=True)
class Engine:
    """Runs `docker` commands.

    environment: what points the client at this engine, added to the process's own environment.
    """

    environment: Mapping[str, str] = field(default_factory=dict)

    def _variables(self) -> dict[str, str]:
        # Variables of a developer's own deployment would win over those of a test's .env.
        own = {name: text for name, text in os.environ.items() if not name.startswith(_DEPLOYMENT)}
        # Another builder than the engine's own does not see local base images.
        return {**own, "BUILDX_BUILDER": "default", **self.environment}

    def run(self, *arguments: str, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``docker ARGUMENTS``; output and errors are captured, the status is the caller's to check."""
        return subprocess.run(
            ["docker", *arguments],
            env={**self._variables(), **options.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )

    def docker(self, *arguments: str, timeout: float = 300, **options: Any) -> str:
        """Run ``docker ARGUMENTS`` and return what it prints.

        Raises:
            CommandFailed: with what it printed.
        """
        done = self.run(*arguments, timeout=timeout, **options)
        if done.returncode:
            raise CommandFailed(f"docker {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-8000:]}")
        return done.stdout.strip()

    def output(self, *arguments: str, stdin: bytes = b"") -> Iterator[bytes]:
        """Run ``docker ARGUMENTS`` and yield what it prints, in pieces of 1 MiB.

        Args:
            arguments: of docker.
            stdin: at most 64 KiB.

        Raises:
            CommandFailed: the command failed.
        """
        variables = {**os.environ, **self.environment, **BUILDKIT}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(["docker", *arguments], env=variables, **pipes) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(stdin)
            process.stdin.close()
            while piece := process.stdout.read(1 << 20):
                yield piece
        if process.returncode:
            raise CommandFailed(f"docker {' '.join(arguments)}")

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine knows of a container, image, network or volume."""
        (found,) = json.loads(self.docker("inspect", name))
        return dict(found)

    def has_image(self, tag: str) -> bool:
        return self.run("image", "inspect", tag).returncode == 0


@contextmanager
def available_engine() -> Iterator[Engine]:
    """The engine that ``docker`` reaches, else one that lives until the end of the block.

    Where neither is possible the tests are skipped; in CI they fail.
    """
    required("docker", _HINT)
    here = Engine()
    if here.run("compose", "version").returncode:
        required("docker-compose-plugin", "needs the compose plugin; .ci/container-tools installs it")
    if here.run("info").returncode == 0:
        yield here
        return
    program = required("dockerd", _HINT)
    if os.geteuid() != 0:
        pytest.skip("an engine of the tests' own needs root")
    # Not pytest's folder: a path of a socket has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="tritonflare-engine-"))
    try:
        with _private_engine(program, folder) as engine:
            yield engine
    finally:
        shutil.rmtree(folder)


@contextmanager
def _private_engine(program: str, folder: Path) -> Iterator[Engine]:
    socket = f"unix://{folder}/socket"
    places = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, *places, f"--host={socket}"], stdout=output, stderr=output)
    engine = Engine({"DOCKER_HOST": socket})
    try:
        wait_until(lambda: process.poll() is not None or engine.run("info").returncode == 0, 60)
        assert engine.run("info").returncode == 0, log.read_text()[-4000:]
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            unmount_below(folder)


def unmount_below(folder: Path) -> None:
    """Unmount what an engine leaves mounted at its end, such as its network namespace; the deepest first."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        # Lazily: what still uses it must not keep the folder from being removed.
        subprocess.run(["umount", "--lazy", mount], check=True, capture_output=True, timeout=30)

"""Debian's podman with a storage of its own, which runs the pods of manifests (`podman kube play`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.containers.engine import CommandFailed, Engine, unmount_below
from tests.support.programs import required

_HINT = "needs podman; .ci/container-tools installs it"
# runc: Debian's crun refuses hosts with both versions of cgroups. Limits: podman would raise them above those
# of the caller, which root in a container may not do.
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
"""
_NETWORK = "tritonflare"


@dataclass(frozen=True)
class Podman:
    """Runs `podman` commands on the storage in ``folder``; made by `private_podman`."""

    folder: Path

    def run(
        self, *arguments: str, timeout: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``podman ARGUMENTS``; output and errors are captured, the status is the caller's to check."""
        return subprocess.run(
            [*self._command(), *arguments],
            env=self._environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def podman(self, *arguments: str, timeout: float = 60, stdin: str | None = None) -> str:
        """Run ``podman ARGUMENTS`` and return what it prints.

        Raises:
            CommandFailed: with what it printed.
        """
        done = self.run(*arguments, timeout=timeout, stdin=stdin)
        if done.returncode:
            raise CommandFailed(f"podman {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-8000:]}")
        return done.stdout.strip()

    def copy_images(self, engine: Engine, tags: Sequence[str]) -> None:
        """Copy images of a Docker engine; here their names begin with ``localhost/``.

        Raises:
            CalledProcessError: one of the two programs failed.
        """
        saving = ["docker", "save", *tags]
        with subprocess.Popen(
            saving, env={**os.environ, **engine.environment}, stdout=subprocess.PIPE
        ) as saved:
            loading = [*self._command(), "load", "--quiet"]
            subprocess.run(
                loading,
                env=self._environment(),
                stdin=saved.stdout,
                capture_output=True,
                timeout=600,
                check=True,
            )
        if saved.returncode:
            raise subprocess.CalledProcessError(saved.returncode, saving)

    def play(
        self, documents: Sequence[Mapping[str, Any]], *, alias: str, start: bool = True, timeout: float = 300
    ) -> None:
        """Run pods; return when their init containers have ended and the others have started.

        Args:
            documents: manifests of the kinds that podman knows.
            alias: a name that resolves to the addresses of all pods that have it.
            start: False only creates them.
            timeout: seconds.

        Raises:
            CommandFailed: with podman's output.
        """
        network = f"--network={_NETWORK}:alias={alias}"
        text = yaml.safe_dump_all(documents)
        self.podman("kube", "play", network, f"--start={start}".lower(), "-", stdin=text, timeout=timeout)

    def inspect(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(self.podman("container", "inspect", container))
        return dict(found)

    def exec(self, container: str, *command: str) -> str:
        """Run a command in a container, as its user; return its output.

        Raises:
            CommandFailed: it ended with another status than 0.
        """
        return self.podman("exec", container, *command)

    def address(self, pod: str) -> str:
        """The pod's IPv4 address, which this host can reach."""
        (found,) = json.loads(f"[{self.podman('pod', 'inspect', pod)}]")
        infra = self.inspect(found["InfraContainerID"])
        return str(infra["NetworkSettings"]["Networks"][_NETWORK]["IPAddress"])

    def _command(self) -> list[str]:
        storage = [f"--root={self.folder}/root", f"--runroot={self.folder}/run", "--storage-driver=overlay"]
        return ["podman", *storage, f"--network-config-dir={self.folder}/net", f"--tmpdir={self.folder}/tmp"]

    def _environment(self) -> dict[str, str]:
        # podman would read the registry logins that Docker's client may have.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        return {**kept, "CONTAINERS_CONF": f"{self.folder}/containers.conf"}


@contextmanager
def private_podman() -> Iterator[Podman]:
    """A podman with an empty storage and a network with DNS; all of it is removed at the end of the block.

    Where that is not possible the tests are skipped; in CI they fail.
    """
    for program in ("podman", "runc"):
        required(program, _HINT)
    for helper in ("netavark", "aardvark-dns"):
        if not Path("/usr/lib/podman", helper).exists():
            required(helper, _HINT)
    if os.geteuid() != 0:
        pytest.skip("limits and networks of pods need root")
    folder = Path(tempfile.mkdtemp(prefix="tritonflare-podman-"))
    (folder / "containers.conf").write_text(_CONFIGURATION, encoding="utf-8")
    podman = Podman(folder)
    try:
        podman.podman("network", "create", _NETWORK)
        yield podman
    finally:
        podman.run("pod", "rm", "--all", "--force", "--time=0")
        podman.run("network", "rm", "--force", _NETWORK)
        unmount_below(folder)
        shutil.rmtree(folder)

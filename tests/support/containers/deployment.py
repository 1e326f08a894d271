"""The compose files as a newcomer runs them: in a copy of the checkout, with the `.env` of docker/env.sh."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.containers.engine import CommandFailed, Engine
from tests.support.containers.images import PYTHON_STANDIN
from tests.support.load import Target
from tests.support.servers import ROOT

MODEL = "@cf/huggingface/distilbert-sst-2-int8"
ACCOUNT = "0123456789abcdef0123456789abcdef"
IMAGE_PREFIX = os.environ.get("IMAGE_PREFIX", "tritonflare-test/")
"""So that images of a developer's own stay what they are."""
_BUILT = ("export", "plans", "gateway", "loadtest")
_NO_DEVICES = """\
services:
  plans: {deploy: !reset null}
  triton: {deploy: {resources: !reset null}}
"""
PATH = f"/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"


def copy_checkout(folder: Path) -> None:
    """Copy the files that git knows or would add, as a clone has them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


@dataclass
class Deployment:
    """A compose project; made by `new_deployment`."""

    engine: Engine
    folder: Path
    name: str
    token: str

    def compose(self, *arguments: str, timeout: float = 600) -> str:
        """Run ``docker compose ARGUMENTS`` in the copy; return what it prints.

        Raises:
            CommandFailed: with what it printed.
        """
        return self.engine.docker(
            "compose", f"--project-name={self.name}", *arguments, timeout=timeout, cwd=self.folder
        )

    def configure(self, **variables: str) -> None:
        """Append variables to ``.env``; later lines win."""
        with (self.folder / ".env").open("a", encoding="utf-8") as env:
            env.writelines(f"{name}={value}\n" for name, value in variables.items())

    def up(self, *services: str) -> float:
        """Run the documented ``up``; return how many seconds it took.

        Raises:
            CommandFailed: with the last log lines of all services.
        """
        began = time.monotonic()
        try:
            self.compose("up", "--detach", "--wait", *services)
        except CommandFailed as error:
            raise CommandFailed(f"{error}\n{self.compose('logs', '--tail=40')}") from error
        return time.monotonic() - began

    def containers(self, service: str) -> list[str]:
        """The service's containers by name, the first replica first, stopped ones included."""
        names = self.compose("ps", "--all", "--format={{.Name}}", service).split()
        return sorted(names, key=lambda name: int(name.rpartition("-")[2]))

    def inspect(self, container: str) -> dict[str, Any]:
        return self.engine.inspect(container)

    def health(self, container: str) -> str:
        """``starting``, ``healthy`` or ``unhealthy``."""
        return str(self.inspect(container)["State"]["Health"]["Status"])

    def gateway_url(self, index: int = 1) -> str:
        """Where a gateway is published, as ``http://127.0.0.1:PORT``; restarts may change it."""
        return "http://" + self.compose("port", f"--index={index}", "gateway", "8787")

    def targets(self) -> list[Target]:
        """All gateways, for the load generators."""
        count = len(self.containers("gateway"))
        return [Target(self.gateway_url(number + 1), self.token, PATH) for number in range(count)]


def new_deployment(
    engine: Engine, folder: Path, name: str, python_image: str, *, gpu: bool = False
) -> Deployment:
    """Prepare the files in ``folder``, for two gateways at most, without starting anything.

    Args:
        engine: where it will run.
        folder: an empty folder for the copy.
        name: of the compose project; unique on this engine.
        python_image: the base of all images.
        gpu: prepare the files for a GPU, which lack nothing but the devices; those are for a CPU otherwise.
    """
    copy_checkout(folder)
    script = ["sh", "docker/env.sh"] + ([] if gpu else ["--cpu"])
    variables = {**os.environ, **engine.environment}
    written = subprocess.run(script, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert written.returncode == 0, written.stderr
    found = re.search(r"^LOADTEST_TOKEN=(\w+)$", (folder / ".env").read_text(), re.MULTILINE)
    assert found
    deployment = Deployment(engine, folder, name, found[1])
    files = "docker-compose.yml"
    if gpu:
        (folder / "no-devices.yml").write_text(_NO_DEVICES, encoding="utf-8")
        files += ":no-devices.yml"
    else:
        files += ":docker-compose.cpu.yml"
    if python_image == PYTHON_STANDIN:
        # Its certificates are this host's, and so is the way to the registries of packages.
        services = "".join(f"  {service}: {{build: {{network: host}}}}\n" for service in _BUILT)
        (folder / "build-network.yml").write_text(f"services:\n{services}", encoding="utf-8")
        files += ":build-network.yml"
    first = _free_ports(2)
    deployment.configure(
        COMPOSE_FILE=files,
        IMAGE_PREFIX=IMAGE_PREFIX,
        PUBLISH=f"127.0.0.1:{first}-{first + 1}",
        PYTHON_IMAGE=python_image,
    )
    return deployment


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that are free on loopback."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        if all(_is_free(first + number) for number in range(count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0

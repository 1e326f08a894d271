"""The image with everything in it, as `docker run` starts it."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.containers.deployment import IMAGE_PREFIX, PATH
from tests.support.containers.engine import Engine
from tests.support.load import Target
from tests.support.servers import wait_until

IMAGE = f"{IMAGE_PREFIX}tritonflare:0.1.0"
TOKEN = "tok"
WITH_TOKEN = ("--env", f"GATEWAY_API_TOKENS=*:{TOKEN}")
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--user", "12345:54321"),
)
PUBLISHED = ("--publish", "127.0.0.1:0:8787")


@dataclass(frozen=True)
class OneContainer:
    """A container of the image; made by `one_container`."""

    engine: Engine
    name: str

    @property
    def url(self) -> str:
        """Where it is published; a restart may change the port."""
        return "http://" + self.engine.docker("port", self.name, "8787")

    @property
    def health(self) -> str:
        """``starting``, ``healthy`` or ``unhealthy``."""
        return str(self.engine.inspect(self.name)["State"]["Health"]["Status"])

    @property
    def log(self) -> str:
        """Its output and errors."""
        done = self.engine.run("logs", self.name)
        return done.stdout + done.stderr

    def target(self, token: str = TOKEN) -> Target:
        """For the load generators."""
        return Target(self.url, token, PATH)

    def wait_until_ready(self, times: int = 1) -> None:
        """Wait until it has logged that it is ready for the ``times``-th time."""
        found = wait_until(lambda: len(re.findall(r"monitor: ready$", self.log, re.MULTILINE)) >= times, 60)
        assert found, self.log


@contextmanager
def one_container(engine: Engine, *options: str) -> Iterator[OneContainer]:
    """Run the image with these options of `docker run` until the end of the block; it is ready."""
    name = f"tritonflare-one-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    engine.docker("run", "--detach", "--name", name, *options, IMAGE)
    container = OneContainer(engine, name)
    try:
        container.wait_until_ready()
        yield container
    finally:
        engine.docker("rm", "--force", "--volumes", name)

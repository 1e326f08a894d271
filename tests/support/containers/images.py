"""Images: a stand-in for the Python base image, made from Debian's packages, and this project's own.

Where a registry can be reached, ``PYTHON_IMAGE`` in the environment names the real base image instead.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.containers.engine import BUILDKIT, Engine
from tests.support.programs import required
from tests.support.servers import ROOT

PYTHON_STANDIN = "tritonflare-test/python:bookworm"
PROMETHEUS = "prom/prometheus:v3.13.3"
"""The name in docker-compose.yml."""
_PROMETHEUS_STANDIN = """
FROM {base}
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus busybox \\
    && ln -s /usr/bin/prometheus /bin/busybox /usr/local/bin/ && ln -s /bin/busybox /usr/local/bin/wget \\
    && install --directory --owner=65534 --group=65534 /prometheus
USER 65534
VOLUME /prometheus
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
"""
_SUITE = "bookworm"
_PACKAGES = "ca-certificates,python3,python3-venv,python3-pip,python-is-python3,libpython3.11,apt"
# As the official image: no documentation, no bytecode, no setuptools. The size is about the same, too.
_TRIM = " && ".join(
    (
        'cd "$1"',
        "rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale var/log/*",
        "rm -rf usr/lib/python3/dist-packages/setuptools* usr/lib/python3/dist-packages/pkg_resources",
        "rm -rf usr/lib/python3/dist-packages/wheel* usr/lib/python3/dist-packages/*distutils*",
        "find usr/lib -name __pycache__ -prune -exec rm -rf {} +",
    )
)
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def python_image(engine: Engine) -> str:
    """The base image to build on: that of ``PYTHON_IMAGE``, else a stand-in, which is made once an engine."""
    if given := os.environ.get("PYTHON_IMAGE"):
        return given
    if not engine.has_image(PYTHON_STANDIN):
        _import_standin(engine)
    return PYTHON_STANDIN


@contextmanager
def prometheus_image(engine: Engine, python_image: str) -> Iterator[None]:
    """Debian's Prometheus under the name of the real image until the end of the block.

    Nothing is done where that image is there, or can be pulled.
    """
    if python_image != PYTHON_STANDIN or engine.has_image(PROMETHEUS):
        yield
        return
    dockerfile = _PROMETHEUS_STANDIN.format(base=python_image)
    engine.docker("build", "--network=host", f"--tag={PROMETHEUS}", "-", input=dockerfile, env=BUILDKIT)
    try:
        yield
    finally:
        engine.docker("rmi", PROMETHEUS)


def build_image(engine: Engine, dockerfile: Path, tag: str, base: str, **arguments: str) -> str:
    """Build an image of this checkout on ``base``, with build arguments; return its tag.

    Raises:
        CommandFailed: with the output of the build.
    """
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    if base == PYTHON_STANDIN:
        # Its certificates are this host's, and so is the way to the registries of packages.
        options.append("--network=host")
    options += [f"--build-arg=PYTHON_IMAGE={base}", f"--file={dockerfile}", f"--tag={tag}", "--quiet"]
    engine.docker("build", *options, str(ROOT), timeout=600, env=BUILDKIT)
    return tag


def _import_standin(engine: Engine) -> None:
    program = required("mmdebstrap", "needs mmdebstrap; .ci/container-tools installs it")
    bootstrap = [program, "--variant=essential", f"--include={_PACKAGES}", f"--customize-hook={_TRIM}"]
    # Registries of packages may be behind a certificate of this host's own.
    bootstrap += [f"--customize-hook=copy-in {_CERTIFICATES} /etc/ssl/certs", "--quiet", _SUITE, "-"]
    importing = ["docker", "import", f"--change=ENV PIP_CERT={_CERTIFICATES}", "-"]
    with subprocess.Popen(bootstrap, stdout=subprocess.PIPE) as made:
        imported = subprocess.run(
            importing,
            stdin=made.stdout,
            env={**os.environ, **engine.environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert made.returncode == 0
    # Named last: half of a system would be taken for the whole from then on.
    engine.docker("tag", imported.stdout.strip(), PYTHON_STANDIN)

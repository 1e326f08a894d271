"""The gateway's image: what it holds is enough, and little."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution, distribution, version
from pathlib import Path

import pytest
from slim import UNUSED, slim

from tests.support.deploy.compose import ROOT

BASE_MB = 130
"""python:3.12-slim-bookworm unpacked, rounded up; from what others published, because no registry is here."""
LIMIT_MB = 200
OURS = ("bulk", "embedded", "export", "gateway", "loadtest", "tritonflare")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gateway image's packages: those of its lock file as they are here, slimmed, and our own."""
    folder = tmp_path_factory.mktemp("site")
    lock = (ROOT / "requirements/gateway.txt").read_text()
    for name in set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)):
        found = distribution(name)
        assert isinstance(found, PathDistribution)
        for part in found.files or ():
            if ".." not in part.parts and "__pycache__" not in part.parts:
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(part.locate(), folder / part)
    for package in OURS:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    ours = version("tritonflare")
    metadata = folder / f"tritonflare-{ours}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tritonflare\nVersion: {ours}\n")
    assert slim(folder, "gateway") == sorted(UNUSED["gateway"])
    return folder


def with_these_packages(site: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that sees these packages and no others."""
    return subprocess.run(
        # -I -S: neither this environment's packages nor the folder that the tests run in.
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(site)!r}); {code}", *arguments],
        env={"PATH": os.defpath, "GATEWAY_API_TOKENS": "*:a-token-of-the-tests", "GATEWAY_GRPC_PORT": "8001"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_line_needs_nothing_that_the_image_leaves_out(site: Path) -> None:
    found = with_these_packages(site, "from tritonflare.main import main; main()", "gateway", "--help")
    assert found.returncode == 0, found.stderr


def test_a_whole_gateway_needs_nothing_that_the_image_leaves_out(site: Path) -> None:
    # As far as a gateway gets before it waits for Triton: everything is imported and put together.
    code = (
        "from gateway.composition import build_app; from gateway.settings import load_settings; "
        "build_app(load_settings()); print(sorted(sys.modules))"
    )
    found = with_these_packages(site, code)
    assert found.returncode == 0, found.stderr
    assert "'tritonclient.grpc.service_pb2'" in found.stdout
    assert "'numpy'" not in found.stdout


def test_the_image_stays_below_its_limit(site: Path) -> None:
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    bytecode = sum(path.stat().st_size for path in site.rglob("*.py"))
    # pip compiles what it installs; bytecode is about as large as what it was made from.
    assert BASE_MB + (size + bytecode) / 1e6 < LIMIT_MB

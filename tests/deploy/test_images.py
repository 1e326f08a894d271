"""The Dockerfiles: a linter's opinion, pins, users, and the gateway image's packages as they are."""

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

from .compose import ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*/Dockerfile"))
BASE_MB = 130
"""python:3.12-slim-bookworm unpacked, rounded up; from what others published, because no registry is here."""
LIMIT_MB = 200
_OURS = {"embedded", "export", "gateway", "loadtest", "tritonflare"}

pytestmark = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Instruction and argument, continued lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE))
    pairs = (line.partition(" ") for line in text.splitlines() if line)
    return [(name, argument.strip()) for name, _, argument in pairs]


def test_the_linter_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_every_base_has_a_version_that_does_not_move(file: Path) -> None:
    bases = [argument.split()[0] for name, argument in instructions(file) if name == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", base), base


def test_the_last_stage_is_not_roots_and_downloads_nothing(file: Path) -> None:
    last = max(at for at, (name, _) in enumerate(instructions(file)) if name == "FROM")
    stage = instructions(file)[last:]
    assert [argument for name, argument in stage if name == "USER"] == ["1000:1000"]
    runs = [argument for name, argument in stage if name == "RUN"]
    assert all(run.startswith("install --directory --owner=1000") for run in runs)


def test_nothing_is_added_from_an_address_and_every_package_has_its_hash(file: Path) -> None:
    assert all(name != "ADD" for name, _ in instructions(file))
    installs = [
        argument for name, argument in instructions(file) if name == "RUN" and "install --no" in argument
    ]
    assert installs
    for argument in installs:
        assert "--require-hashes" in argument or "--no-deps ." in argument


def test_what_is_copied_exists_and_is_let_through(file: Path) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    for name, argument in instructions(file):
        if name != "COPY" or argument.startswith("--from") or argument == ". .":
            continue
        for source in argument.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == kept or source.startswith(kept.rstrip("/")) for kept in let_through), source


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
    for package in _OURS:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    ours = version("tritonflare")
    metadata = folder / f"tritonflare-{ours}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tritonflare\nVersion: {ours}\n")
    assert slim(folder) == sorted(UNUSED)
    return folder


def run(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``tritonflare ARGUMENTS`` with these packages and no others."""
    code = f"import sys; sys.path.append({str(site)!r}); from tritonflare.main import main; main()"
    return subprocess.run(
        # -I -S: neither this environment's packages nor the folder that the tests run in.
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        env={"PATH": os.defpath} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def only_gateway(file: Path) -> None:
    if file.parent.name != "gateway":
        pytest.skip("about the gateway's image alone")


def test_the_gateway_needs_nothing_that_its_image_leaves_out(file: Path, site: Path) -> None:
    only_gateway(file)
    help_text = run(site, "gateway", "--help")
    assert help_text.returncode == 0, help_text.stderr
    # As far as a gateway gets before it waits for Triton: everything is imported and put together.
    code = (
        f"import sys; sys.path.append({str(site)!r}); from gateway.main import build_app; "
        "from gateway.settings import load_settings; build_app(load_settings()); "
        "from tritonclient.grpc import service_pb2_grpc; print(sorted(sys.modules))"
    )
    composed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={"GATEWAY_API_TOKENS": "*:a-token-of-the-tests"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert composed.returncode == 0, composed.stderr
    assert "numpy" not in composed.stdout


def test_the_image_stays_below_its_limit(file: Path, site: Path) -> None:
    only_gateway(file)
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    bytecode = sum(path.stat().st_size for path in site.rglob("*.py"))
    # pip compiles what it installs; bytecode is about as large as what it was made from.
    assert BASE_MB + (size + bytecode) / 1e6 < LIMIT_MB

"""The Dockerfiles: a linter's opinion, pins, users, and what is copied."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deploy.compose import ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*/Dockerfile"))
CHECKPOINT = ROOT / "deploy" / "kubernetes" / "checkpoint.Dockerfile"
"""One COPY on top of the exporter's image, so the linter's opinion is all that is asked of it here."""
every_image = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Instruction and argument, continued lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE))
    pairs = (line.partition(" ") for line in text.splitlines() if line)
    return [(name, argument.strip()) for name, _, argument in pairs]


@pytest.mark.parametrize("file", [*DOCKERFILES, CHECKPOINT], ids=lambda file: file.parent.name)
def test_the_linter_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@every_image
def test_every_base_has_a_version_that_does_not_move(file: Path) -> None:
    given = dict(argument.split("=", 1) for name, argument in instructions(file) if name == "ARG")
    bases = [argument.split()[0] for name, argument in instructions(file) if name == "FROM"]
    assert len(bases) == 2
    for base in bases:
        # A build argument, so that a mirror or another Debian can take its place.
        default = given[base.removeprefix("${").removesuffix("}")]
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", default), base


@every_image
def test_the_last_stage_is_not_roots_and_downloads_nothing(file: Path) -> None:
    last = max(at for at, (name, _) in enumerate(instructions(file)) if name == "FROM")
    stage = instructions(file)[last:]
    assert [argument for name, argument in stage if name == "USER"] == ["1000:1000"]
    runs = [argument for name, argument in stage if name == "RUN"]
    assert all(run.startswith(("install --directory", "python -m compileall", "PYTHONPATH=")) for run in runs)
    assert not any("python3." in argument for _, argument in instructions(file))


@every_image
def test_nothing_is_added_from_an_address_and_every_package_has_its_hash(file: Path) -> None:
    assert all(name != "ADD" for name, _ in instructions(file))
    installs = [
        argument for name, argument in instructions(file) if name == "RUN" and "install --no" in argument
    ]
    assert installs
    for argument in installs:
        assert "--require-hashes" in argument or "--no-deps ." in argument


@every_image
def test_what_is_copied_exists_and_is_let_through(file: Path) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    for name, argument in instructions(file):
        if name != "COPY" or argument.startswith("--from") or argument == ". .":
            continue
        for source in argument.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == kept or source.startswith(kept.rstrip("/")) for kept in let_through), source

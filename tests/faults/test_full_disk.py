"""A disk that is full or read-only under the repository, while a version is published."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.repository import check_repository
from export.errors import ExportError
from tests.support.bundled import bundled_repository
from tests.support.releases import publish_second_version
from tests.support.servers import finished

ROOM = 40 * 1024 * 1024
"""For one version of the bundled model, not for two."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting needs root and the right to do so")
    try:
        shutil.copytree(bundled_repository(), folder / "models")
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def content(repository: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in repository.rglob("*") if file.is_file()}


def test_a_full_disk_leaves_what_is_published_as_it_was(disk: Path) -> None:
    before = content(disk / "models")
    with pytest.raises(ExportError, match=r"^models was not changed: No space left on device\.$"):
        publish_second_version(disk / "models")
    assert content(disk / "models") == before
    assert len(check_repository(disk / "models")) == 1
    assert [path.name for path in disk.iterdir() if "staging" in path.name] == []


def test_a_read_only_repository_is_one_clear_sentence_and_can_be_served(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    name = "@cf/huggingface/distilbert-sst-2-int8"
    status, output = finished("export", "--remove", name, "--repository", str(disk / "models"))
    assert status == 2
    assert output.count("\n") == 1
    assert "Read-only file system" in output
    assert len(check_repository(disk / "models")) == 1

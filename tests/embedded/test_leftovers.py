from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from embedded import leftovers


@pytest.fixture
def regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shm").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(leftovers, "SHM", tmp_path / "shm")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "shm"


@pytest.fixture
def gone() -> int:
    """Id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_what_dead_supervisors_left_is_swept(regions: Path, gone: int) -> None:
    mine, theirs = f"{leftovers.tag()}a", f"tritonflare_{gone}_a"
    for name in (mine, theirs, "tritonflare_other", "triton_python_backend_shm_region_1"):
        (regions / name).touch()
    scratch = regions.parent / "tmp" / f"tritonflare_{gone}_scratch"
    (scratch / "backends").mkdir(parents=True)
    assert leftovers.sweep() == 2
    assert not (regions / theirs).exists()
    assert not scratch.exists()
    assert len(list(regions.iterdir())) == 3


def test_a_stopping_server_sweeps_its_own_too_and_not_its_neighbours(regions: Path) -> None:
    (regions / f"{leftovers.tag()}1_a").touch()
    (regions / f"tritonflare_{os.getppid()}_a").touch()
    (regions / f"{leftovers.tag()}2_a").touch()
    assert leftovers.sweep(own=f"{leftovers.tag()}1_") == 1
    left = {f"tritonflare_{os.getppid()}_a", f"{leftovers.tag()}2_a"}
    assert {path.name for path in regions.iterdir()} == left


def test_another_users_region_is_no_reason_to_fail(
    regions: Path, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (regions / f"tritonflare_{gone}_a").touch()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert leftovers.sweep() == 0


def test_a_stub_that_outlived_its_supervisor_is_ended_and_others_are_not(
    regions: Path, gone: int, tmp_path: Path
) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    shutil.copy("/bin/sh", stub)
    wait = "read line"  # a builtin: the process keeps its name and command line
    orphan, kept = (
        subprocess.Popen([stub, "-c", wait, f"tritonflare_{owner}_x"], stdin=subprocess.PIPE)
        for owner in (gone, os.getpid())
    )
    try:
        leftovers.sweep()
        assert orphan.wait(5) == -9
        assert kept.poll() is None
    finally:
        for process in (orphan, kept):
            process.kill()
            process.communicate()

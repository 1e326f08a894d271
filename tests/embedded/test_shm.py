from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedded import shm


@pytest.fixture
def regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shm, "SHM", tmp_path)
    return tmp_path


def test_only_regions_of_dead_supervisors_are_swept(regions: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine, theirs = f"{shm.prefix()}a", f"tritonflare_{gone.pid}_a"
    for name in (mine, theirs, "tritonflare_other", "triton_python_backend_shm_region_1"):
        (regions / name).touch()
    assert shm.sweep() == 1
    assert not (regions / theirs).exists()
    assert len(list(regions.iterdir())) == 3


def test_a_stopping_supervisor_sweeps_its_own_too(regions: Path) -> None:
    (regions / f"{shm.prefix()}a").touch()
    (regions / f"tritonflare_{os.getppid()}_a").touch()
    assert shm.sweep(own=True) == 1
    assert [p.name for p in regions.iterdir()] == [f"tritonflare_{os.getppid()}_a"]

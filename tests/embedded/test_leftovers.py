from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded import leftovers
from embedded.errors import EmbeddedError
from embedded.leftovers import Claim

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
_CLAIM = """
import sys
from pathlib import Path
from embedded import leftovers
leftovers.SHM = Path(sys.argv[1])
claims = [leftovers.Claim("server", regions=True), leftovers.Claim("snapshot")]
print(claims[0].tag, *(claim.folder for claim in claims), flush=True)
sys.stdin.read()
"""
_SWEEP = """
import sys
from pathlib import Path
from embedded import leftovers
leftovers.SHM = Path(sys.argv[1])
print(leftovers.sweep())
"""


@pytest.fixture
def regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shm").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(leftovers, "SHM", tmp_path / "shm")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "shm"


@pytest.fixture
def temporary(regions: Path) -> Path:
    return regions.parent / "tmp"


def python(program: str, regions: Path, *before: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(regions.parent / "tmp"), "PYTHONPATH": str(ROOT)}
    command = [*before, sys.executable, "-c", program, str(regions)]
    return subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)


class Other:
    """Another process that has claimed something."""

    def __init__(self, regions: Path) -> None:
        self.process = python(_CLAIM, regions)
        assert self.process.stdout is not None
        tag, *folders = self.process.stdout.readline().split()
        self.tag, self.folders = tag, [Path(folder) for folder in folders]
        self.region = regions / f"{tag}region"
        self.region.touch()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def is_whole(self) -> bool:
        return self.region.exists() and all(folder.is_dir() for folder in self.folders)


@pytest.fixture
def other(regions: Path) -> Iterator[Other]:
    other = Other(regions)
    yield other
    other.kill()


def test_only_what_dead_servers_left_is_swept(regions: Path, temporary: Path, other: Other) -> None:
    mine = Claim("server", regions=True)
    (regions / f"{mine.tag}a").touch()
    for name in ("tritonflare_other", "triton_python_backend_shm_region_1"):
        (regions / name).touch()
    (temporary / "tritonflare_of_another").mkdir()
    (other.folders[0] / "backends").mkdir()
    assert leftovers.sweep() == 0
    assert other.is_whole
    other.kill()
    assert leftovers.sweep() == 3
    assert {path.name for path in temporary.iterdir()} == {mine.folder.name, "tritonflare_of_another"}
    assert not list(regions.glob(f"{other.tag}*"))
    assert (regions / f"{mine.tag}a").exists()
    mine.release()
    assert [path.name for path in temporary.iterdir()] == ["tritonflare_of_another"]
    assert len(list(regions.iterdir())) == 2


@pytest.mark.parametrize("name", ["tritonflare_*_lock", "tritonflare_{pid}_lock"])
def test_a_lock_that_no_server_made_frees_no_regions(regions: Path, other: Other, name: str) -> None:
    (regions / name.format(pid=other.process.pid)).touch()
    assert leftovers.sweep() == 0
    assert other.is_whole


def test_a_server_in_another_pid_namespace_removes_nothing_of_a_live_one(regions: Path, other: Other) -> None:
    apart = ("unshare", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("namespaces need the right to make them")
    with python(_SWEEP, regions, *apart) as sweeping:
        assert sweeping.communicate(timeout=60)[0] == "0\n"
    assert other.is_whole
    other.kill()
    with python(_SWEEP, regions, *apart) as sweeping:
        assert sweeping.communicate(timeout=60)[0] == "3\n"


def test_a_server_removes_its_own_and_not_what_its_process_has_beside_it(regions: Path) -> None:
    one, two = (Claim("server", regions=True) for _ in range(2))
    for claim in (one, two):
        (regions / f"{claim.tag}a").touch()
    one.release()
    one.release()
    assert not one.folder.exists()
    assert two.folder.is_dir()
    assert {path.name for path in regions.iterdir()} == {f"{two.tag}a", f"{two.tag}lock"}
    two.release()


def test_a_folder_is_locked_so_that_systemds_cleaner_leaves_it_alone(regions: Path) -> None:
    claim = Claim("snapshot")
    descriptor = os.open(claim.folder, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    claim.release()


def test_what_is_swept_before_it_could_be_locked_is_made_again(
    regions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    swept: list[Path] = []

    def flock(descriptor: int, operation: int) -> None:
        if len(swept) < 2 and operation == fcntl.LOCK_EX:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            path.rmdir() if path.is_dir() else path.unlink()
            swept.append(path)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    claim = Claim("server", regions=True)
    assert len(swept) == 2
    assert claim.folder.is_dir()
    assert (regions / f"{claim.tag}lock").exists()
    claim.release()


def test_another_users_region_is_no_reason_to_fail(
    regions: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.kill()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert leftovers.sweep() == 2  # the folders
    assert other.region.exists()


def test_no_room_for_a_folder_is_one_sentence(regions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(regions / "gone"))
    with pytest.raises(
        EmbeddedError, match=r"^No folder could be made in TMPDIR: No such file or directory\.$"
    ):
        Claim("server", regions=True)


def test_a_stub_that_outlived_its_supervisor_is_ended_and_others_are_not(
    regions: Path, tmp_path: Path, other: Other
) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    shutil.copy("/bin/sh", stub)
    wait = "read line"  # a builtin: the process keeps its name and command line
    mine = Claim("server", regions=True)
    orphan, kept = (
        subprocess.Popen([stub, "-c", wait, f"{folder}/models/a/1/model.py"], stdin=subprocess.PIPE)
        for folder in (other.folders[0], mine.folder)
    )
    try:
        leftovers.sweep()
        assert orphan.poll() is None
        other.kill()
        leftovers.sweep()
        assert orphan.wait(5) == -9
        assert kept.poll() is None
    finally:
        for process in (orphan, kept):
            process.kill()
            process.communicate()
        mine.release()

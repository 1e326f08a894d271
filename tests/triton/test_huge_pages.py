"""The weights lie in huge pages: fewer addresses to look up."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from embedded import wheel
from embedded.server import TritonServer

pytestmark = pytest.mark.needs_triton
MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_kib(pid: int) -> int:
    """KiB of a process's own memory that lie in huge pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


def weights_kib(repository: Path) -> int:
    return max(file.stat().st_size for file in repository.rglob("model.onnx")) // 1024


@pytest.mark.skipif(
    not MODES.exists() or "[madvise]" not in MODES.read_text(encoding="ascii"),
    reason="the kernel does not leave it to programs",
)
def test_the_encoder_has_huge_pages(triton: TritonServer, repository: Path) -> None:
    stubs = psutil.Process(triton.pid).children(recursive=True)
    assert max(huge_kib(stub.pid) for stub in stubs) > weights_kib(repository)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_tunables_of_the_user_stay(given: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", given)
    assert wheel.environment()["GLIBC_TUNABLES"] == used

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from embedded import leftovers, server
from embedded.errors import EmbeddedError
from embedded.server import TritonServer
from tests.support.bundled import bundled_repository


def test_a_full_disk_for_temporary_files_is_one_sentence_that_the_supervisor_can_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(scratch: Path, repository: Path, device: str) -> None:
        (scratch / "backends").mkdir()
        raise OSError(28, "No space left on device")

    for name in ("tmp", "shm"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(leftovers, "SHM", tmp_path / "shm")
    monkeypatch.setattr(server, "prepare_scratch", full)
    with pytest.raises(EmbeddedError, match=r"^Triton cannot be started: No space left on device\.$"):
        TritonServer(bundled_repository()).start()
    assert not [*(tmp_path / "tmp").iterdir(), *(tmp_path / "shm").iterdir()]

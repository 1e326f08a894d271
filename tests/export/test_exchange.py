from __future__ import annotations

import ctypes
import errno
import fcntl
import multiprocessing
import shutil
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace

import pytest

from export.errors import PublishError
from export.repository.exchange import replace_repository


def write(name: str, content: str) -> Callable[[Path], None]:
    def into(root: Path) -> None:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
        (root / name / "config.pbtxt").write_text(content)

    return into


def test_the_first_export_makes_the_repository_and_the_next_replaces_only_its_model(tmp_path: Path) -> None:
    repository = tmp_path / "deep" / "repository"
    replace_repository(repository, write("one", "1"))
    replace_repository(repository, write("two", "2"))
    replace_repository(repository, write("one", "new"))
    found = {p.parent.name: p.read_text() for p in repository.glob("*/config.pbtxt")}
    assert found == {"one": "new", "two": "2"}
    assert [p.name for p in repository.parent.iterdir() if "staging" in p.name] == []


def test_a_failure_half_way_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    replace_repository(repository, write("one", "1"))

    def fails(root: Path) -> None:
        write("one", "half")(root)
        raise OSError(28, "No space left on device")

    with pytest.raises(PublishError, match="was not changed: No space left"):
        replace_repository(repository, fails)
    assert (repository / "one" / "config.pbtxt").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir() if "staging" in p.name] == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EINVAL, "file system cannot exchange two folders"), (errno.EACCES, "Permission denied")],
)
def test_a_refused_exchange_says_why_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    def refuse(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    repository = tmp_path / "repository"
    replace_repository(repository, write("one", "1"))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=refuse))
    with pytest.raises(PublishError, match=f"repository was not changed: .*{reason}"):
        replace_repository(repository, write("one", "2"))
    assert (repository / "one" / "config.pbtxt").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir() if "staging" in p.name] == []


def test_what_a_killed_export_left_behind_is_not_published(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    replace_repository(repository, write("one", "1"))
    stale = tmp_path / ".repository.staging" / "ghost"
    stale.mkdir(parents=True)
    replace_repository(repository, write("two", "2"))
    assert sorted(p.name for p in repository.iterdir()) == ["one", "two"]


def test_two_exports_at_once_are_refused(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with (tmp_path / ".repository.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PublishError, match="another export"):
            replace_repository(repository, write("one", "1"))
    assert not repository.exists()


def _read_until(repository: str, stop: Event, bad: Event) -> None:
    while not stop.is_set():
        one = (Path(repository) / "one" / "config.pbtxt").read_text()
        if one not in {"1", "2"}:
            bad.set()


def test_a_reader_always_finds_a_whole_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    replace_repository(repository, write("one", "1"))
    context = multiprocessing.get_context("spawn")
    stop, bad = context.Event(), context.Event()
    reader = context.Process(target=_read_until, args=(str(repository), stop, bad))
    reader.start()
    for turn in range(200):
        replace_repository(repository, write("one", "12"[turn % 2]))
    stop.set()
    reader.join(10)
    assert reader.exitcode == 0  # it died of FileNotFoundError if the folder was ever missing
    assert not bad.is_set()

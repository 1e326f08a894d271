from __future__ import annotations

import ctypes
import errno
import fcntl
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import pytest

from export.errors import PublishError
from export.files import only_writer
from export.repository import exchange
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
def test_a_refused_exchange_gives_the_reason_and_changes_nothing(
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


def test_a_lock_that_is_held_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "WAIT_S", 0.3)
    repository = tmp_path / "repository"
    with (tmp_path / ".repository.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PublishError, match="another export is writing repository and did not end within"):
            replace_repository(repository, write("one", "1"))
    assert not repository.exists()


def test_an_export_waits_for_the_turn_of_another(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with (tmp_path / ".repository.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        release = Timer(0.3, fcntl.flock, (lock, fcntl.LOCK_UN))
        release.start()
        replace_repository(repository, write("one", "1"))
        release.join()
    assert (repository / "one" / "config.pbtxt").read_text() == "1"


def test_a_lock_without_waiting_is_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    folder = tmp_path / "folder"
    refused = pytest.raises(PublishError, match="another export is writing folder; wait")
    with only_writer(folder), refused, only_writer(folder):
        pass
    assert time.monotonic() < began + 5


def test_a_file_in_the_repositorys_place_stays_and_gets_no_lock(tmp_path: Path) -> None:
    (tmp_path / "repository").write_text("mine")
    with pytest.raises(PublishError, match="repository cannot be written here: it is not a folder"):
        replace_repository(tmp_path / "repository", write("one", "1"))
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_links_stay_links_wherever_they_lead_and_pipes_are_not_opened(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    replace_repository(repository, write("one", "1"))
    (tmp_path / "elsewhere").mkdir()
    targets = {"outside": "../elsewhere", "inside": "one/config.pbtxt", "dangling": "nowhere"}
    for name, target in targets.items():
        (repository / name).symlink_to(target)
    os.mkfifo(repository / "pipe")
    replace_repository(repository, write("one", "2"))
    assert {name: os.readlink(repository / name) for name in targets} == targets
    assert (repository / "outside").is_dir()
    assert (repository / "inside").read_text() == "2"
    assert (repository / "pipe").is_fifo()


def test_a_replaced_repository_is_not_reported_as_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repository = tmp_path / "repository"
    sync = os.fsync

    def fails(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path.resolve():
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    for content in "12":
        replace_repository(repository, write("one", content))
        assert (repository / "one" / "config.pbtxt").read_text() == content
    assert "repository was replaced, but a power cut may undo that: Input/output error." in caplog.text


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

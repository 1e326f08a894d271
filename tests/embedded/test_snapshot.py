from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from embedded.errors import EmbeddedError
from embedded.snapshot import Releases, take_snapshot
from export.repository.exchange import replace_repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "one" / "1").mkdir(parents=True)
    (folder / "one" / "1" / "model.onnx").write_text("first")
    return folder


def publish(repository: Path, content: str) -> None:
    def change(root: Path) -> None:
        (root / "one" / "1" / "model.onnx").unlink()
        (root / "one" / "1" / "model.onnx").write_text(content)

    replace_repository(repository, change)


def test_a_snapshot_costs_no_room_and_outlives_what_was_published(repository: Path, tmp_path: Path) -> None:
    take_snapshot(repository, tmp_path / "copy")
    copy = tmp_path / "copy" / "one" / "1" / "model.onnx"
    assert copy.samefile(repository / "one" / "1" / "model.onnx")
    publish(repository, "second")
    assert copy.read_text() == "first"


def test_where_links_are_refused_it_copies(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    take_snapshot(repository, tmp_path / "copy")
    assert (tmp_path / "copy" / "one" / "1" / "model.onnx").read_text() == "first"


def test_a_version_that_is_published_while_copying_is_taken_whole(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "one" / "config.pbtxt").write_text("first")
    real, copied = os.link, []

    def link(source: str, target: str) -> None:
        real(source, target)
        if Path(target).is_relative_to(tmp_path / "copy"):  # publishing links too
            copied.append(source)
            if len(copied) == 1:
                publish(repository, "second")

    monkeypatch.setattr(os, "link", link)
    take_snapshot(repository, tmp_path / "copy")
    assert len(copied) == 4
    assert (tmp_path / "copy" / "one" / "1" / "model.onnx").read_text() == "second"


def test_a_full_disk_is_reported(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(EmbeddedError, match="TMPDIR: No space left on device"):
        take_snapshot(repository, tmp_path / "copy")


def test_a_missing_repository_comes_with_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="tritonflare export"):
        take_snapshot(tmp_path / "nowhere", tmp_path / "copy")


def test_a_new_version_counts_when_it_has_settled(repository: Path) -> None:
    releases = Releases(repository)
    releases.take().remove()
    assert not releases.is_new()
    assert not releases.has_settled()
    publish(repository, "second")
    assert releases.is_new()
    assert not releases.has_settled()
    assert releases.has_settled()
    releases.take().remove()
    assert not releases.has_settled()
    releases.forget()
    assert releases.has_settled()


def test_a_new_version_behind_a_link_to_a_folder_counts(repository: Path, tmp_path: Path) -> None:
    (repository / "one").rename(tmp_path / "elsewhere")
    (repository / "one").symlink_to(tmp_path / "elsewhere")
    releases = Releases(repository)
    taken = releases.take()
    assert not releases.is_new()
    (tmp_path / "new").write_text("second")
    (tmp_path / "new").rename(tmp_path / "elsewhere" / "1" / "model.onnx")
    assert releases.is_new()
    taken.remove()


def test_a_snapshot_that_was_cleaned_away_is_not_whole_any_more(repository: Path) -> None:
    (repository / "one" / "config.pbtxt").write_text("first")
    taken = Releases(repository).take()
    assert taken.is_whole()
    publish(repository, "second")
    assert taken.is_whole()
    (taken.models / "one" / "config.pbtxt").unlink()
    assert not taken.is_whole()
    shutil.rmtree(taken.models.parent)
    assert not taken.is_whole()
    taken.remove()


def test_what_a_server_adds_and_a_new_time_stamp_leave_a_snapshot_whole(repository: Path) -> None:
    taken = Releases(repository).take()
    cache = taken.models / "one" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"compiled")
    os.utime(repository / "one" / "1" / "model.onnx", (1, 1))  # the same file, by a hard link
    assert taken.is_whole()
    (taken.models / "one" / "1" / "model.onnx").write_text("cut")
    assert not taken.is_whole()
    taken.remove()

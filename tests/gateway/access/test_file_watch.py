"""Files that change under a watch."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.access.file_watch import CHECK_S, MOST_CHECKS, FileWatch, follow
from gateway.settings import ConfigurationError


def checks(watch: FileWatch, count: int = 3) -> list[bool]:
    return [watch.has_changed() for _ in range(count)]


def test_a_rewritten_file_an_exchanged_one_and_one_that_is_gone_are_changes_once_each(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    watch = FileWatch([file])
    assert checks(watch) == [False, False, False]
    file.write_text("another")
    assert checks(watch) == [False, True, False]
    new = tmp_path / "new"
    new.write_text("another")
    os.utime(new, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    new.replace(file)
    assert checks(watch) == [False, True, False]
    file.unlink()
    assert checks(watch) == [False, True, False]


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    watch = FileWatch([file])
    with file.open("a") as writing:
        for number in range(5):
            writing.write(f"{number}\n")
            writing.flush()
            assert not watch.has_changed()
    assert checks(watch) == [True, False, False]


def test_a_file_that_never_settles_is_reported_all_the_same_and_again(tmp_path: Path) -> None:
    """It is replaced before every check: a token that was revoked in between must not stay valid."""
    file = tmp_path / "file"
    file.write_text("0")
    watch = FileWatch([file])
    reported = []
    for number in range(3 * MOST_CHECKS):
        (tmp_path / "new").write_text("x" * number)
        (tmp_path / "new").replace(file)
        reported.append(watch.has_changed())
    assert [number for number, changed in enumerate(reported, 1) if changed] == [
        MOST_CHECKS,
        2 * MOST_CHECKS,
        3 * MOST_CHECKS,
    ]
    assert MOST_CHECKS * CHECK_S == 5  # docs/security.md gives this figure


def test_a_file_that_appears_is_a_change(tmp_path: Path) -> None:
    watch = FileWatch([tmp_path / "folder" / "file"])
    assert checks(watch) == [False, False, False]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("")
    assert checks(watch) == [False, True, False]


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path) -> None:
    """Kubernetes exchanges a mounted secret so."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(name)
    link = tmp_path / "data"
    link.symlink_to("a")
    watch = FileWatch([link / "tokens"])
    link.unlink()
    link.symlink_to("b")
    assert checks(watch) == [False, True, False]


async def test_what_cannot_be_read_is_one_line_in_the_log_and_the_next_change_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("good")
    read: list[str] = []

    def read_again() -> str:
        text = file.read_text()
        if text.startswith("bad"):
            raise ConfigurationError("Line 1 is bad.")
        if text.startswith("worse"):
            raise ZeroDivisionError
        read.append(text)
        return "read"

    async def write(text: str) -> None:
        file.write_text(text)
        await asyncio.sleep(0.1)

    with caplog.at_level(logging.INFO, "tritonflare"):
        task = asyncio.create_task(follow(FileWatch([file]), read_again, 0.01))
        await asyncio.sleep(0.05)
        for text in ("good 2", "bad", "worse", "good 3"):
            await write(text)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert read == ["good 2", "good 3"]
    logged = [record.getMessage() for record in caplog.records]
    assert logged[0] == logged[3] == "read"
    assert logged[1] == "Line 1 is bad. The content that was read before stays in force."
    assert len(logged) == 4


async def test_what_cannot_be_read_for_a_moment_is_read_without_another_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("good")
    failures = [ConfigurationError("It cannot be read."), *[PermissionError()] * 3]
    tries = 0

    def read_again() -> str:
        nonlocal tries
        tries += 1
        if failures:
            raise failures.pop(0)
        return "read"

    with caplog.at_level(logging.INFO, "tritonflare"):
        task = asyncio.create_task(follow(FileWatch([file]), read_again, 0.01))
        file.write_text("good 2")
        await asyncio.sleep(0.3)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert tries == 5
    logged = [record.getMessage() for record in caplog.records]
    assert logged[0] == "It cannot be read. The content that was read before stays in force."
    assert logged[2:] == ["read"]


async def test_a_file_that_could_not_be_read_is_not_tried_while_it_is_being_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("good")
    watch = FileWatch([file])
    file.write_text("half")
    assert checks(watch, 2) == [False, True]
    assert watch.is_settled
    file.write_text("half and")
    assert checks(watch, 1) == [False]
    assert not watch.is_settled

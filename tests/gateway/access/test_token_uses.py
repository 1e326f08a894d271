"""The file of the last uses of tokens: what it holds, who may write it at once, and how often."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace

import pytest

from gateway.access.token_uses import TokenUses, UsesError, record_uses, uses_file, warn_of_unrecorded_uses
from gateway.access.tokens import TokenTable, hash_token, load_tokens, short_id
from gateway.access.tokens_file import TokenEntry

USED = short_id(hash_token("used"))
IDLE = short_id(hash_token("idle"))


@pytest.fixture
def uses(tmp_path: Path) -> TokenUses:
    return TokenUses(uses_file(tmp_path / "state" / "tokens"))


def table() -> TokenTable:
    return TokenTable([TokenEntry("a", hash_token("used")), TokenEntry("a", hash_token("idle"))])


def test_the_latest_use_of_each_token_stays(uses: TokenUses) -> None:
    uses.record({USED: 2e9})
    uses.record({USED: 1e9, IDLE: 1e9})
    assert uses.read() == {USED: 2e9, IDLE: 1e9}
    uses.record({IDLE: 3e9})
    uses.forget([USED])
    assert uses.read() == {IDLE: 3e9}
    assert uses.file.name == "tokens.used"
    assert stat.S_IMODE(uses.file.stat().st_mode) == 0o600
    assert [path.name for path in uses.file.parent.iterdir()] == ["tokens.used"]


def test_forgetting_makes_no_file(uses: TokenUses) -> None:
    uses.forget([USED])
    assert not uses.file.parent.exists()


def test_processes_that_write_at_once_lose_nothing(uses: TokenUses) -> None:
    code = (
        "import sys; from pathlib import Path; from gateway.access.token_uses import TokenUses\n"
        "for number in range(20): "
        "TokenUses(Path(sys.argv[1])).record("
        "{name: 1e9 + number for name in (f'{sys.argv[2]}{number:011x}', 'f' * 12)})"
    )
    writers = [Popen([sys.executable, "-c", code, str(uses.file), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    expected = {f"{name}{number:011x}": 1e9 + number for name in "ab" for number in range(20)}
    assert uses.read() == expected | {"f" * 12: 1e9 + 19}


@pytest.mark.parametrize("content", [None, b"", b"not a database, but longer than the header of one" * 4])
def test_a_file_that_is_none_cannot_be_read(uses: TokenUses, content: bytes | None) -> None:
    if content is not None:
        uses.file.parent.mkdir()
        uses.file.write_bytes(content)
    with pytest.raises(UsesError):
        uses.read()
    assert uses.file.exists() == (content is not None)


def test_what_cannot_be_written_is_an_error_without_a_path(uses: TokenUses) -> None:
    assert uses.is_writable()
    uses.file.parent.write_text("no folder")
    assert not uses.is_writable()
    with pytest.raises(UsesError) as caught:
        uses.record({USED: 1e9})
    assert "state" not in str(caught.value)


def test_a_place_that_cannot_even_be_looked_at_is_one_that_cannot_be_written(tmp_path: Path) -> None:
    uses = TokenUses(tmp_path / ("x" * 300) / "uses")  # too long a name, which root may not enter either
    assert not uses.is_writable()
    uses.forget([USED])
    with pytest.raises(UsesError):
        uses.record({USED: 1e9})


async def test_the_end_does_not_wait_long_for_another_process_that_writes(uses: TokenUses) -> None:
    uses.record({IDLE: 1e9})
    tokens = table()
    tokens.check("used", "a")
    other = sqlite3.connect(uses.file)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    await _recording(tokens, uses, 0.005, 3600)
    assert 0.4 < time.monotonic() - began < 2.5
    other.close()
    assert uses.read() == {IDLE: 1e9}


def test_a_table_reports_granted_tokens_of_its_file_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    lines = (hash_token("used") + " # x", hash_token("idle"), hash_token("old") + ":2020-01-01T00:00:00Z")
    file.write_text("".join(f"a:{line}\n" for line in lines))
    tokens = load_tokens("a:inline, a:used", file)
    for token, account in (("used", "a"), ("inline", "a"), ("idle", "b"), ("old", "a"), ("wrong", "a")):
        tokens.check(token, account)
    assert tokens.take_used() == {USED}
    assert tokens.take_used() == set()
    tokens.check("idle", None)
    tokens.replace(load_tokens(None, file))
    assert tokens.take_used() == {IDLE}


async def _recording(tokens: TokenTable, uses: TokenUses, seconds: float, between_s: float) -> None:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(record_uses(tokens, uses, between_s=between_s, look_s=0.01), seconds)


async def test_the_first_use_is_written_soon_and_later_ones_seldom(
    uses: TokenUses, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[frozenset[str]] = []

    def record(self: TokenUses, used: dict[str, float], busy_s: float) -> None:
        written.append(frozenset(used))

    monkeypatch.setattr(TokenUses, "record", record)
    tokens = table()
    tokens.check("used", "a")
    recording = asyncio.create_task(_recording(tokens, uses, 0.5, 3600))
    await asyncio.sleep(0.2)
    assert written == [{USED}]
    tokens.check("idle", "a")
    await asyncio.sleep(0.1)
    assert written == [{USED}]
    await recording
    assert written == [{USED}, {IDLE}]  # the end of the process loses nothing


async def test_a_failure_is_logged_once_and_its_uses_are_written_later(
    uses: TokenUses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = table()
    real, attempts = TokenUses.record, 0

    def record(self: TokenUses, used: dict[str, float], busy_s: float) -> None:
        nonlocal attempts
        attempts += 1
        clock["now"] += 3600
        if attempts <= 3:
            raise UsesError("disk full")
        real(self, used, busy_s)

    clock = {"now": 1e9}
    monkeypatch.setattr("gateway.access.token_uses.time", SimpleNamespace(time=lambda: clock["now"]))
    monkeypatch.setattr(TokenUses, "record", record)
    tokens.check("used", "a")
    await _recording(tokens, uses, 0.5, 0.01)
    assert [record.getMessage() for record in caplog.records] == [
        f"the last use of tokens cannot be noted in {uses.file}: disk full"
    ]
    assert uses.read() == {USED: 1e9}  # when it was used, not when that could be written
    assert attempts == 4


def test_that_nothing_is_noted_is_said_once_and_louder_where_it_was_asked_for(
    uses: TokenUses, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tritonflare"):
        warn_of_unrecorded_uses(uses, is_chosen=True)
        assert not caplog.records
        uses.file.parent.write_text("no folder")
        warn_of_unrecorded_uses(uses, is_chosen=False)
        warn_of_unrecorded_uses(uses, is_chosen=True)
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.WARNING]


def test_the_file_holds_ids_and_times_alone(uses: TokenUses) -> None:
    tokens = table()
    tokens.check("used", "a")
    uses.record(dict.fromkeys(tokens.take_used(), 1_800_000_000))
    with sqlite3.connect(uses.file) as db:
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        rows = db.execute("SELECT * FROM uses").fetchall()
    db.close()
    assert (tables, rows) == (1, [(USED, "2027-01-15T08:00:00Z")])

"""``tritonflare token``: create, list, revoke."""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.access.tokens import TokenAccess, hash_token, load_tokens
from gateway.access.tokens_file import read_tokens_file
from gateway.settings import ConfigurationError
from tritonflare.token import token


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tokens"


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(token, [*arguments, "--file", str(file)])


def test_a_token_is_created_listed_and_revoked(file: Path) -> None:
    secrets = [run(file, "create", "--account", name).stdout.strip() for name in ("a", "b")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = run(file, "list").stdout
    assert [line.split(maxsplit=1)[1] for line in listed.splitlines()] == [
        "a  never expires",
        "b  never expires",
    ]
    assert not any(secret in listed for secret in secrets)
    identity = listed.split()[0]
    assert run(file, "revoke", identity).exit_code == 0
    table = load_tokens(None, file)
    assert table.check(secrets[0], "a") is TokenAccess.UNKNOWN_TOKEN
    assert table.check(secrets[1], "b") is TokenAccess.GRANTED
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["tokens"]


@pytest.mark.parametrize("content", [None, "", "# ours\n"])
def test_a_list_without_tokens_shows_the_command_that_creates_one(file: Path, content: str | None) -> None:
    if content is not None:
        file.parent.mkdir()
        file.write_text(content)
    listed = run(file, "list")
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert listed.stderr.startswith("no tokens yet; `")
    assert listed.stderr.endswith(f" token create --file {file}` creates one\n")


def test_a_list_of_a_file_that_cannot_be_read_fails(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        CliRunner().invoke(token, ["list", "--file", str(file)], catch_exceptions=False)


def test_revoking_keeps_comments_and_takes_all_accounts_of_the_token(file: Path) -> None:
    file.parent.mkdir()
    digest = hash_token("t")
    file.write_text(f"# ours\na:{digest}\n\nb:{digest}:2999-01-01T00:00:00Z\nc:{hash_token('u')}\n")
    assert run(file, "revoke", digest[:8].upper()).exit_code == 0
    assert file.read_text() == f"# ours\n\nc:{hash_token('u')}\n"


@pytest.mark.parametrize("existing", [None, "a:" + "0" * 64 + "\n"])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_one_sentence_and_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch, existing: str | None, call: str
) -> None:
    file.parent.mkdir()
    if existing is not None:
        file.write_text(existing)

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    result = run(file, "create")
    monkeypatch.undo()
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"Error: {file} was not changed: No space left on device.\n"
    assert (file.read_text() if file.exists() else None) == existing


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    result = run(tmp_path / "state" / "tokens", "create")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert result.stderr.endswith("was not changed: File exists.\n")


@pytest.mark.parametrize("identity", ["0123456789ab", "", "012"])
def test_an_id_that_no_token_has_or_that_is_short_changes_nothing(file: Path, identity: str) -> None:
    run(file, "create")
    before = file.read_bytes()
    assert run(file, "revoke", identity).exit_code != 0
    assert file.read_bytes() == before


@pytest.mark.parametrize(("given", "seconds"), [("90m", 5400), ("12h", 43_200), ("30d", 2_592_000)])
def test_a_token_may_expire_after_a_span(file: Path, given: str, seconds: int) -> None:
    run(file, "create", "--expires", given)
    (entry,) = read_tokens_file(file)
    assert abs(entry.expires - time.time() - seconds) < 30
    assert re.search(r"expires 2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", run(file, "list").stdout)


def test_a_token_may_expire_at_a_time_and_is_shown_as_expired_after_it(file: Path) -> None:
    run(file, "create", "--expires", "2999-12-31T00:00:00Z")
    assert "expires 2999-12-31T00:00:00Z" in run(file, "list").stdout
    file.write_text(f"*:{hash_token('t')}:2020-01-01T00:00:00Z\n")
    assert "expired 2020-01-01T00:00:00Z" in run(file, "list").stdout


@pytest.mark.parametrize("given", ["", "soon", "0d", "2020-01-01T00:00:00Z", "-3d", "2999-12-31"])
def test_an_expiry_that_is_none_or_over_makes_no_token(file: Path, given: str) -> None:
    assert run(file, "create", "--expires", given).exit_code == 2
    assert not file.exists()


def test_a_token_without_an_expiry_never_expires(file: Path) -> None:
    run(file, "create")
    assert [entry.expires for entry in read_tokens_file(file)] == [math.inf]

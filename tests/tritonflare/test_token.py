"""``tritonflare token``: create, list, revoke."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.access.token_uses import TokenUses, uses_file
from gateway.access.tokens import TokenAccess, hash_token, load_tokens, short_id
from gateway.access.tokens_file import read_tokens_file, utc
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
    assert [line.split()[1:] for line in listed.splitlines()] == [
        ["name", "last", "used", "expires", "account"],
        ["unknown", "never", "a"],
        ["unknown", "never", "b"],
    ]
    assert not any(secret in listed for secret in secrets)
    identity = listed.splitlines()[1].split()[0]
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


def test_a_token_has_a_name_that_is_listed_and_by_which_it_is_revoked(file: Path) -> None:
    secret = run(file, "create", "--name", " Reviews: importer #2 [bold] ", "--expires", "2999-12-31").stdout
    run(file, "create", "--account", "a")
    (named, other) = read_tokens_file(file)
    assert (named.name, other.name) == ("Reviews: importer #2 [bold]", "")
    assert load_tokens(None, file).check(secret.strip(), "b") is TokenAccess.GRANTED
    listed = run(file, "list").stdout.splitlines()
    assert "  Reviews: importer #2 [bold]  unknown " in listed[1]
    assert run(file, "revoke", "Reviews: importer #2 [bold]").exit_code == 0
    assert read_tokens_file(file) == [other]


def test_a_name_that_two_tokens_have_revokes_neither(file: Path) -> None:
    for _ in range(2):
        run(file, "create", "--name", "ci")
    result = run(file, "revoke", "ci")
    assert (result.exit_code, len(read_tokens_file(file))) == (1, 2)
    assert result.stderr == "Error: several tokens have this id or name\n"


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "a\x1b[31mred", "n" * 65])
def test_a_name_that_is_none_makes_no_token(file: Path, name: str) -> None:
    assert run(file, "create", "--name", name).exit_code == 2
    assert not file.exists()


def test_a_name_that_was_written_by_hand_cannot_steer_the_terminal(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(f"a:{hash_token('t')}   #\ta\x1b[31mred \n")
    assert read_tokens_file(file)[0].name == "a[31mred"


def test_the_last_use_is_listed_and_forgotten_with_the_token(file: Path) -> None:
    secrets = [run(file, "create", "--name", name).stdout.strip() for name in ("used", "idle")]
    used, idle = (short_id(hash_token(secret)) for secret in secrets)
    uses = TokenUses(uses_file(file))
    uses.record({used: 1_800_000_000})
    listed = run(file, "list")
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        [used, "used", "2027-01-15T08:00:00Z"],
        [idle, "idle", "never"],
    ]
    assert listed.stderr == ""
    assert json.loads(run(file, "list", "--json").stdout) == [
        {"id": used, "name": "used", "account": "*", "expires": None, "last_used": "2027-01-15T08:00:00Z"},
        {"id": idle, "name": "idle", "account": "*", "expires": None, "last_used": None},
    ]
    run(file, "revoke", used)
    assert uses.read() == {}


def test_a_list_for_programs_is_json_without_tokens_too(file: Path) -> None:
    assert json.loads(run(file, "list", "--json").stdout) == []


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
    assert re.search(r" 2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ  \* *\n", run(file, "list").stdout)


def test_a_token_may_expire_at_a_time_and_is_shown_as_expired_after_it(file: Path) -> None:
    run(file, "create", "--expires", "2999-12-31T00:00:00Z")
    assert "2999-12-31T00:00:00Z  *" in run(file, "list").stdout
    file.write_text(f"*:{hash_token('t')}:2020-01-01T00:00:00Z\n")
    assert "2020-01-01T00:00:00Z (expired)  *" in run(file, "list").stdout


def test_a_token_may_expire_at_the_beginning_of_a_day(file: Path) -> None:
    created = run(file, "create", "--expires", "2999-12-31")
    assert created.stderr.endswith(" It expires 2999-12-31T00:00:00Z.\n")
    assert [utc(entry.expires) for entry in read_tokens_file(file)] == ["2999-12-31T00:00:00Z"]


@pytest.mark.parametrize(
    "given", ["", "soon", "0d", "2020-01-01T00:00:00Z", "-3d", "2020-01-01", "2999-13-01"]
)
def test_an_expiry_that_is_none_or_over_makes_no_token(file: Path, given: str) -> None:
    assert run(file, "create", "--expires", given).exit_code == 2
    assert not file.exists()


def test_a_token_without_an_expiry_never_expires(file: Path) -> None:
    run(file, "create")
    assert [entry.expires for entry in read_tokens_file(file)] == [math.inf]

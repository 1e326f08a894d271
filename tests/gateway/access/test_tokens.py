"""Making, loading and checking tokens."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.tokens import (
    ForwardOnlyClock,
    TokenAccess,
    TokenTable,
    hash_token,
    is_token68,
    load_tokens,
    new_token,
)
from gateway.access.tokens_file import TokenEntry, read_tokens_file
from gateway.settings import ConfigurationError

TOKEN68 = st.from_regex(r"[A-Za-z0-9\-._~+/]{1,60}={0,2}", fullmatch=True)


def test_new_tokens_are_url_safe_long_and_different() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) and is_token68(token) for token in tokens)


@given(TOKEN68)
def test_a_hash_is_the_sha256_in_hex(token: str) -> None:
    assert hash_token(token) == hashlib.sha256(token.encode()).hexdigest()


@given(TOKEN68, TOKEN68, st.sampled_from(["mine", "*"]))
def test_only_the_very_token_opens_only_its_accounts(token: str, other: str, account: str) -> None:
    table = load_tokens(f"{account}:{token}", None)
    assert table.check(token, "mine") is TokenAccess.GRANTED
    elsewhere = TokenAccess.GRANTED if account == "*" else TokenAccess.OTHER_ACCOUNT
    assert table.check(token, "yours") is elsewhere
    if other != token:
        assert table.check(other, "mine") is TokenAccess.UNKNOWN_TOKEN


def test_one_token_may_open_several_accounts() -> None:
    table = load_tokens("a:t, b:t,,c:u", None)
    assert [table.check("t", account) for account in "abc"] == [
        TokenAccess.GRANTED,
        TokenAccess.GRANTED,
        TokenAccess.OTHER_ACCOUNT,
    ]
    assert len(table) == 2


def test_the_table_keeps_no_token() -> None:
    table = load_tokens("account:a-very-secret-token", None)
    assert "a-very-secret-token" not in repr(vars(table))
    assert hash_token("a-very-secret-token") in repr(vars(table))


def test_a_tokens_file_holds_hashes_comments_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# mine\n\na:{hash_token('t')}\n  b:{hash_token('u').upper()}  \n")
    table = load_tokens("c:v", file)
    assert table.check("t", "a") is TokenAccess.GRANTED
    assert table.check("u", "b") is TokenAccess.GRANTED
    assert table.check("v", "c") is TokenAccess.GRANTED
    assert table.check(hash_token("t"), "a") is TokenAccess.UNKNOWN_TOKEN


@pytest.mark.parametrize("inline", ["just-a-token", ":token", "account:", "account:not a token", "a:b:ü"])
def test_a_malformed_entry_is_named_by_its_place_only(inline: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_tokens(f"good:token,{inline}", None)
    assert str(caught.value) == "Entry 2 of GATEWAY_API_TOKENS is not of the form account:token."


def test_a_malformed_line_is_named_by_its_number_only(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# a plain token by mistake:\naccount:plain-token\n")
    with pytest.raises(ConfigurationError, match=r"^Line 2 of .* is not of the form account:sha256hex, with"):
        load_tokens(None, file)


@pytest.mark.parametrize("inline", [None, "", " , "])
def test_no_token_at_all_is_refused(inline: str | None, tmp_path: Path) -> None:
    empty = tmp_path / "tokens"
    empty.write_text("# nothing\n")
    for file in (None, empty):
        with pytest.raises(ConfigurationError, match="No API token is configured"):
            load_tokens(inline, file)


def test_a_tokens_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_tokens("a:b", tmp_path / "none")


def test_an_empty_table_opens_nothing() -> None:
    assert TokenTable([]).check("", "") is TokenAccess.UNKNOWN_TOKEN


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@given(st.floats(1e9, 3e9), st.floats(1e9, 3e9))
def test_a_token_is_good_before_it_expires_and_unknown_from_then_on(expires: float, now: float) -> None:
    table = TokenTable([TokenEntry("a", hash_token("t"), expires)], _Clock(now))
    assert table.check("t", "a") is (TokenAccess.GRANTED if now < expires else TokenAccess.UNKNOWN_TOKEN)
    assert table.expires("t", "a") == (expires if now < expires else 0)


def test_each_account_of_a_token_has_its_own_expiry_and_the_latest_counts() -> None:
    digest = hash_token("t")
    clock = _Clock(0)
    table = TokenTable(
        [TokenEntry("a", digest, 10), TokenEntry("b", digest, 20), TokenEntry("a", digest, 15)], clock
    )
    for now, a, b in (
        (14, TokenAccess.GRANTED, TokenAccess.GRANTED),
        (15, TokenAccess.OTHER_ACCOUNT, TokenAccess.GRANTED),
    ):
        clock.now = now
        assert (table.check("t", "a"), table.check("t", "b")) == (a, b)
    assert table.expires("t", None) == 20
    clock.now = 20
    assert table.check("t", "b") is TokenAccess.UNKNOWN_TOKEN


def test_a_replaced_table_knows_the_new_tokens_only() -> None:
    table = load_tokens("a:old", None)
    table.replace(load_tokens("b:new", None))
    assert table.check("old", "a") is TokenAccess.UNKNOWN_TOKEN
    assert table.check("new", "b") is TokenAccess.GRANTED
    assert table.accounts == {"b"}


def test_the_clock_of_expiry_follows_the_machine_forward_and_never_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, up = _Clock(1000.0), _Clock(50.0)
    monkeypatch.setattr("gateway.access.tokens.time.time", machine)
    monkeypatch.setattr("gateway.access.tokens.time.clock_gettime", lambda _clock: up())
    now = ForwardOnlyClock.begin()
    assert now() == 1000
    machine.now, up.now = 500, 60  # set back while ten seconds passed
    assert now() == 1010
    machine.now = 5000  # set forward
    assert now() == 5000
    machine.now, up.now = 1020, 70  # put right
    assert now() == 1020


def test_a_tokens_file_may_contain_the_expiry_of_a_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(
        f"a:{hash_token('past')}:2020-01-01T00:00:00Z\na:{hash_token('future')}:2999-12-31T23:59:59Z\n"
    )
    table = load_tokens(None, file)
    assert table.check("past", "a") is TokenAccess.UNKNOWN_TOKEN
    assert table.check("future", "a") is TokenAccess.GRANTED
    assert [entry.line() for entry in read_tokens_file(file)] == file.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    "when", ["", "tomorrow", "2026-12-31", "2026-13-31T00:00:00Z", "2026-12-31T00:00:00"]
)
def test_an_expiry_that_is_none_is_a_malformed_line(tmp_path: Path, when: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"a:{hash_token('t')}:{when}\n")
    with pytest.raises(ConfigurationError, match=r"^Line 1 of "):
        load_tokens(None, file)

"""Making, loading and checking tokens."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import ConfigurationError
from gateway.tokens import Access, TokenTable, hash_token, is_token68, load_tokens, new_token

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
    assert table.check(token, "mine") is Access.GRANTED
    elsewhere = Access.GRANTED if account == "*" else Access.OTHER_ACCOUNT
    assert table.check(token, "yours") is elsewhere
    if other != token:
        assert table.check(other, "mine") is Access.UNKNOWN_TOKEN


def test_one_token_may_open_several_accounts() -> None:
    table = load_tokens("a:t, b:t,,c:u", None)
    assert [table.check("t", account) for account in "abc"] == [
        Access.GRANTED,
        Access.GRANTED,
        Access.OTHER_ACCOUNT,
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
    assert table.check("t", "a") is Access.GRANTED
    assert table.check("u", "b") is Access.GRANTED
    assert table.check("v", "c") is Access.GRANTED
    assert table.check(hash_token("t"), "a") is Access.UNKNOWN_TOKEN


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
    assert TokenTable([]).check("", "") is Access.UNKNOWN_TOKEN

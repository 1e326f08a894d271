"""API tokens: making, hashing and checking them. Only SHA-256 digests stay in memory.

A token is 256 random bits, so a plain SHA-256 is enough: there is no dictionary to slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from gateway.access.tokens_file import TokenEntry, read_tokens_file
from gateway.settings import ConfigurationError

ANY_ACCOUNT = "*"
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class TokenAccess(Enum):
    """What a token may do with an account."""

    GRANTED = auto()
    OTHER_ACCOUNT = auto()
    UNKNOWN_TOKEN = auto()


def new_token() -> str:
    """Return a fresh URL-safe token of 43 characters (256 bits), without any prefix."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the SHA-256 of ``token`` as 64 lower-case hex digits, as a tokens file holds it."""
    return hashlib.sha256(token.encode()).hexdigest()


def short_id(digest: str) -> str:
    """Return the id by which operators know a token: the first 12 digits of its hash."""
    return digest[:12]


def token_id(token: str) -> str:
    """Return a stable id of ``token``, 32 hex digits, that reveals neither it nor its stored hash."""
    return hashlib.sha256(f"tritonflare token id {token}".encode()).hexdigest()[:32]


def owner_id(token: str) -> str:
    """Return a name for the owner of ``token`` that no account has, and that only its owner can make."""
    return "token:" + hashlib.sha256(f"tritonflare batch owner {token}".encode()).hexdigest()


def is_token68(value: str) -> bool:
    """Tell whether ``value`` can follow ``Bearer`` at all (RFC 7235, section 2.1)."""
    return _TOKEN68.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class ForwardOnlyClock:
    """A clock of the seconds since 1970 on which an expired token stays expired.

    It is the machine's clock, but never behind the time that has passed since this one began, suspension
    included: setting the machine's clock back makes no expired token valid again. A clock set forward by
    mistake ends tokens early, until it is corrected. It can be passed to another process on this machine.
    """

    began: float
    began_up: float

    @classmethod
    def begin(cls) -> ForwardOnlyClock:
        """Begin now."""
        return cls(time.time(), _up_s())

    def __call__(self) -> float:
        """Return the time."""
        return max(time.time(), self.began + _up_s() - self.began_up)


def _up_s() -> float:
    # Linux alone counts suspension.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class TokenTable:
    """Which token is valid for which accounts, and until when; it can be passed to another process.

    A token may be listed for several accounts; the latest expiry of each counts.

    Args:
        entries: the tokens.
        clock: seconds since 1970; used for tokens that expire.
        inline: tokens that no file lists; `take_used` does not report them.
    """

    def __init__(
        self,
        entries: Iterable[TokenEntry],
        clock: Callable[[], float] | None = None,
        *,
        inline: Iterable[TokenEntry] = (),
    ) -> None:
        self._now = clock if clock is not None else ForwardOnlyClock.begin()
        entries = list(entries)
        self._listed = frozenset(entry.digest for entry in entries)
        self._used: set[str] = set()
        accounts: dict[str, dict[str, float]] = {}
        for entry in (*entries, *inline):
            until = accounts.setdefault(entry.digest, {})
            until[entry.account] = max(entry.expires, until.get(entry.account, 0.0))
        self._entries = {
            digest: (digest, until, any(expires < math.inf for expires in until.values()))
            for digest, until in accounts.items()
        }
        self.accounts = frozenset(account for until in accounts.values() for account in until)
        """The accounts that tokens name, ``*`` among them if there is a token for any."""

    def __len__(self) -> int:
        return len(self._entries)

    def replace(self, other: TokenTable) -> None:
        """Replace all tokens by those of ``other``."""
        self._entries, self.accounts, self._listed = other._entries, other.accounts, other._listed

    def take_used(self) -> frozenset[str]:
        """Return the ids of the tokens of a file that were granted since the last call; see `short_id`."""
        used, self._used = self._used, set()
        return frozenset(short_id(digest) for digest in used & self._listed)

    def check(self, token: str, account: str | None) -> TokenAccess:
        """Look ``token`` up by its digest, so that timing reveals nothing about the stored ones.

        Without an ``account`` any known token is granted. An expired token counts as unknown.
        """
        digest = hash_token(token)
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry[0], digest):
            return TokenAccess.UNKNOWN_TOKEN
        until = entry[1] if not entry[2] else self._unexpired(entry[1])
        if not until:
            return TokenAccess.UNKNOWN_TOKEN
        if account is None or account in until or ANY_ACCOUNT in until:
            self._used.add(digest)
            return TokenAccess.GRANTED
        return TokenAccess.OTHER_ACCOUNT

    def only_account(self, token: str) -> str:
        """Return the account of a token that is valid for one alone; else ``""``."""
        entry = self._entries.get(hash_token(token))
        until = {} if entry is None else self._unexpired(entry[1])
        return next(iter(until)) if len(until) == 1 else ""

    def expires(self, token: str, account: str | None) -> float:
        """Return when ``token`` expires for ``account``, or for all of its accounts; inf for never.

        Seconds since 1970; 0 for a token that is not valid.
        """
        entry = self._entries.get(hash_token(token))
        until = {} if entry is None else self._unexpired(entry[1])
        named = [until[name] for name in (account, ANY_ACCOUNT) if name is not None and name in until]
        return max(named or until.values(), default=0.0)

    def _unexpired(self, until: dict[str, float]) -> dict[str, float]:
        now = self._now()
        return {account: expires for account, expires in until.items() if now < expires}


def load_tokens(inline: str | None, file: Path | None, *, may_be_empty: bool = False) -> TokenTable:
    """Build the table from ``GATEWAY_API_TOKENS`` and ``GATEWAY_TOKENS_FILE``.

    Args:
        inline: comma-separated ``account:token``; the account ``*`` stands for any.
        file: path of a tokens file.
        may_be_empty: allow an empty table: the last token may have been revoked.

    Raises:
        ConfigurationError: an entry is malformed, the file cannot be read, or there is no token at all.
            The message names the entry by its position, never by its content.
    """
    inline_entries = list(_inline_entries(inline or ""))
    entries = [] if file is None else read_tokens_file(file)
    if not inline_entries and not entries and not may_be_empty:
        raise ConfigurationError(
            "No API token is configured, so every request would be refused: set GATEWAY_API_TOKENS="
            "account:token or GATEWAY_TOKENS_FILE (`tritonflare token` makes one)."
        )
    return TokenTable(entries, inline=inline_entries)


def _inline_entries(inline: str) -> Iterator[TokenEntry]:
    for place, entry in enumerate(filter(None, map(str.strip, inline.split(","))), start=1):
        account, _, token = entry.partition(":")
        if not account or not is_token68(token):
            raise ConfigurationError(f"Entry {place} of GATEWAY_API_TOKENS is not of the form account:token.")
        yield TokenEntry(account, hash_token(token))

"""API tokens: making, hashing and checking them. Only SHA-256 digests stay in memory.

A token is 256 random bits, so a plain SHA-256 is enough: there is no dictionary to slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from pathlib import Path

from gateway.settings import ConfigurationError

ANY_ACCOUNT = "*"
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")


class Access(Enum):
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


def token_id(token: str) -> str:
    """Return a stable id of ``token``, 32 hex digits, that tells nothing about it or its stored hash."""
    return hashlib.sha256(f"tritonflare token id {token}".encode()).hexdigest()[:32]


def is_token68(value: str) -> bool:
    """Tell whether ``value`` can follow ``Bearer`` at all (RFC 7235, section 2.1)."""
    return _TOKEN68.fullmatch(value) is not None


class TokenTable:
    """Which token opens which accounts."""

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        """Take ``(account, sha256 hex)`` pairs; a token may be listed for several accounts."""
        accounts: dict[str, set[str]] = {}
        for account, digest in entries:
            accounts.setdefault(digest.lower(), set()).add(account)
        self._entries = {digest: (digest, frozenset(names)) for digest, names in accounts.items()}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def accounts(self) -> frozenset[str]:
        """The accounts that tokens name, ``*`` among them if there is a token for any."""
        return frozenset().union(*(accounts for _, accounts in self._entries.values()))

    def check(self, token: str, account: str | None) -> Access:
        """Look ``token`` up by its digest, so that timing tells nothing about the stored ones.

        Without an ``account`` any known token will do.
        """
        digest = hash_token(token)
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry[0], digest):
            return Access.UNKNOWN_TOKEN
        if account is None or not entry[1].isdisjoint((account, ANY_ACCOUNT)):
            return Access.GRANTED
        return Access.OTHER_ACCOUNT


def load_tokens(inline: str | None, file: Path | None) -> TokenTable:
    """Build the table from ``GATEWAY_API_TOKENS`` and ``GATEWAY_TOKENS_FILE``.

    Args:
        inline: comma-separated ``account:token``; the account ``*`` stands for any.
        file: path of a file with ``account:sha256hex`` lines; ``#`` starts a comment line.

    Raises:
        ConfigurationError: an entry is malformed, the file cannot be read, or there is no token at all.
            The sentence names the entry by its place, never by its content.
    """
    entries = list(_inline_entries(inline or ""))
    if file is not None:
        entries += _file_entries(file)
    if not entries:
        raise ConfigurationError(
            "No API token is configured, so nobody could call this gateway: set GATEWAY_API_TOKENS="
            "account:token or GATEWAY_TOKENS_FILE (`tritonflare token` makes one)."
        )
    return TokenTable(entries)


def _inline_entries(inline: str) -> Iterator[tuple[str, str]]:
    for place, entry in enumerate(filter(None, map(str.strip, inline.split(","))), start=1):
        account, _, token = entry.partition(":")
        if not account or not is_token68(token):
            raise ConfigurationError(f"Entry {place} of GATEWAY_API_TOKENS is not of the form account:token.")
        yield account, hash_token(token)


def _file_entries(file: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"GATEWAY_TOKENS_FILE {file} cannot be read.") from exc
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        account, _, digest = line.partition(":")
        if not account or _SHA256_HEX.fullmatch(digest) is None:
            raise ConfigurationError(f"Line {number} of {file} is not of the form account:sha256hex.")
        yield account, digest

"""The file of token hashes.

A line is ``account:sha256hex``, then ``:2026-12-31T00:00:00Z`` if the token expires, then `` # name`` if it
has one.
"""

from __future__ import annotations

import errno
import math
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from gateway.settings import ConfigurationError

_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A token, identified by its hash, is valid for an account until it expires."""

    account: str
    digest: str
    """SHA-256 in lower-case hex."""
    expires: float = math.inf
    """Seconds since 1970; valid before that."""
    name: str = ""
    """For people, one printable line; empty if it has none."""

    def line(self) -> str:
        """Format it as a line of the file."""
        timed = "" if math.isinf(self.expires) else f":{utc(self.expires)}"
        named = f" # {self.name}" if self.name else ""
        return f"{self.account}:{self.digest}{timed}{named}\n"


def utc(seconds: float) -> str:
    """Format a time as the API and the file do: ``2026-12-31T00:00:00Z``."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime(_TIME)


def from_utc(text: str) -> float:
    """Parse such a time.

    Raises:
        ValueError: it has another form.
    """
    return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc).timestamp()


def read_tokens_file(file: Path) -> list[TokenEntry]:
    """Read all entries; ``#`` starts a comment line.

    Raises:
        ConfigurationError: it cannot be read, or a line is malformed. The message names the line by its
            number, never by its content.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"GATEWAY_TOKENS_FILE {file} cannot be read.") from exc
    entries = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            entry = _entry(line)
            if entry is None:
                raise ConfigurationError(
                    f"Line {number} of {file} is not of the form account:sha256hex, with an optional "
                    ":2026-12-31T00:00:00Z and # name."
                )
            entries.append(entry)
    return entries


def _entry(line: str) -> TokenEntry | None:
    account, _, rest = line.partition(":")
    valid, _, name = rest.partition("#")
    digest, timed, expiry = valid.rstrip().partition(":")
    if not account or _SHA256_HEX.fullmatch(digest) is None:
        return None
    # Files are written by hand too, and a terminal obeys what is not printable.
    name = "".join(filter(str.isprintable, name)).strip()
    try:
        return TokenEntry(account, digest.lower(), from_utc(expiry) if timed else math.inf, name)
    except ValueError:
        return None


def append_entry(file: Path, entry: TokenEntry) -> None:
    """Append a line to ``file``, which only its owner can read.

    Raises:
        OSError: the line was not written, and the file is unchanged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    existed = file.exists()
    line = entry.line().encode()
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        length = os.fstat(descriptor).st_size
        try:
            # One write, so that the lines of two processes that append do not mix.
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            # An empty file would mean that no token is valid, and a partial line is a damaged file.
            os.ftruncate(descriptor, length)
            if not existed:
                file.unlink()
            raise
    finally:
        os.close(descriptor)


def remove_digests(file: Path, digests: Iterable[str]) -> None:
    """Remove the lines of some tokens; the file is replaced as a whole, comments stay."""
    gone = set(digests)
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        entry = _entry(line.strip())
        if entry is None or entry.digest not in gone:
            kept.append(line)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as lines:
            lines.writelines(kept)
        os.chmod(name, file.stat().st_mode & 0o7777)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise

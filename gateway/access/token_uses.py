"""When each token was last used: a small SQLite file that every gateway process updates.

Requests only add a digest to a set in memory (`TokenTable.check`). The file is written in the background, at
most once a minute, and holds ids of tokens and times, nothing else. A gateway that cannot write it serves
all the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from gateway.access.tokens import TokenTable
from gateway.access.tokens_file import from_utc, utc

_log = logging.getLogger("tritonflare.tokens")

BETWEEN_S = 60.0
"""Shortest time between two writings of a process; a use may be missing for so long."""
_LOOK_S = 1.0
"""Time until the first use after a quiet minute is written."""
_BUSY_S = 5.0
"""How long a writing waits for that of another process."""
_END_BUSY_S = 0.5
"""The same for the last writing, which the end of the process waits for."""
_TABLE = "CREATE TABLE IF NOT EXISTS uses (id TEXT PRIMARY KEY, last_used TEXT NOT NULL) WITHOUT ROWID"
_UPDATE = (
    "INSERT INTO uses VALUES (?, ?) "
    "ON CONFLICT (id) DO UPDATE SET last_used = max(last_used, excluded.last_used)"
)


class UsesError(Exception):
    """The file cannot be used; the message gives the reason without the path."""


def uses_file(tokens_file: Path) -> Path:
    """Return the default place: beside the tokens file."""
    return tokens_file.with_name(f"{tokens_file.name}.used")


class TokenUses:
    """The file; each call opens and closes it, so that it may be shared and replaced."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def is_writable(self) -> bool:
        """Tell whether uses can probably be noted, without making anything."""
        file = self.file.absolute()
        try:
            if file.exists() and not os.access(file, os.W_OK):
                return False
            # SQLite needs the folder too, for its journal.
            folder = next(folder for folder in file.parents if folder.exists())
        except OSError:  # a folder above it may not be entered, for example
            return False
        return os.access(folder, os.W_OK | os.X_OK)

    def record(self, used: Mapping[str, float], busy_s: float = _BUSY_S) -> None:
        """Note when tokens were used; a later time that is noted stays.

        Args:
            used: seconds since 1970 by the token's id.
            busy_s: how long to wait for other processes that write.

        Raises:
            UsesError: nothing was written.
        """
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would make it readable for everyone.
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(self.file, timeout=busy_s)) as db, db:
                db.execute(_TABLE)
                db.executemany(_UPDATE, [(name, utc(moment)) for name, moment in sorted(used.items())])
        except OSError as error:
            raise UsesError(error.strerror or "it cannot be opened") from error
        except sqlite3.Error as error:
            raise UsesError(str(error)) from error

    def read(self) -> dict[str, float]:
        """Return the last use of tokens by their id, in seconds since 1970.

        Raises:
            UsesError: there is no such file, or it cannot be read.
        """
        try:
            with closing(sqlite3.connect(_read_only(self.file), uri=True, timeout=_BUSY_S)) as db:
                return {name: from_utc(used) for name, used in db.execute("SELECT id, last_used FROM uses")}
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise UsesError(str(error)) from error

    def forget(self, ids: Iterable[str]) -> None:
        """Remove what is noted of some tokens, if there is a file.

        Raises:
            UsesError: it cannot be written.
        """
        # Path.exists would raise an error where it may not look.
        if not os.path.exists(self.file):
            return
        try:
            with closing(sqlite3.connect(self.file, timeout=_BUSY_S)) as db, db:
                db.executemany("DELETE FROM uses WHERE id = ?", [(name,) for name in ids])
        except sqlite3.Error as error:
            raise UsesError(str(error)) from error


def _read_only(file: Path) -> str:
    return f"{file.absolute().as_uri()}?mode=ro"


async def record_uses(
    tokens: TokenTable, uses: TokenUses, *, between_s: float = BETWEEN_S, look_s: float = _LOOK_S
) -> None:
    """Write in the background which tokens were used; runs until cancelled, and writes once more then.

    What could not be written is tried again with the next writing. The log has one line when writing begins
    to fail, but none if it cannot succeed from the start: `warn_of_unrecorded_uses` says that once for all
    processes.

    Args:
        tokens: notes the uses.
        uses: where they are written.
        between_s: shortest time between two writings.
        look_s: time between two looks for something to write.
    """
    waiting: dict[str, float] = {}
    failed = not uses.is_writable()
    loop = asyncio.get_running_loop()
    next_at = loop.time()
    try:
        while True:
            await asyncio.sleep(look_s)
            waiting |= dict.fromkeys(tokens.take_used(), time.time())
            if not waiting or loop.time() < next_at:
                continue
            next_at = loop.time() + between_s
            # Cancelled meanwhile, the same uses are written twice, which changes nothing.
            error = await asyncio.to_thread(_try_to_record, uses, dict(waiting))
            if error is None:
                waiting.clear()
            elif not failed:
                _log.warning("the last use of tokens cannot be noted in %s: %s", uses.file, error)
            failed = error is not None
    finally:
        waiting |= dict.fromkeys(tokens.take_used(), time.time())
        if waiting:
            _try_to_record(uses, waiting, _END_BUSY_S)


def _try_to_record(uses: TokenUses, used: Mapping[str, float], busy_s: float = _BUSY_S) -> UsesError | None:
    try:
        uses.record(used, busy_s)
    except UsesError as error:
        return error
    return None


def warn_of_unrecorded_uses(uses: TokenUses, *, is_chosen: bool) -> None:
    """Say once at the start that uses will not be noted, if so.

    Args:
        uses: where they would be.
        is_chosen: whether somebody has set that place, and so expects them there.
    """
    if not uses.is_writable():
        level = logging.WARNING if is_chosen else logging.INFO
        _log.log(
            level,
            "the last use of tokens is not noted: %s cannot be written (GATEWAY_TOKEN_USES_FILE)",
            uses.file,
        )

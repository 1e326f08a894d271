"""The file of `SqliteStore`: its tables, its modes, its transactions, and its log."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "batches.sqlite3"
LOG = f"{FILE}-wal"
"""What was written is here until it is moved into the file; see `empty_log`."""
_VERSION = 1
_BUSY_MS = 5000
"""How long a transaction waits for that of another process."""
_LOG_BUSY_MS = 100
"""How long `empty_log` waits for those that read or write."""
_STEP_PAGES = 500
"""How many pages of 4 KiB are given back to the file system in one transaction."""
_SCHEMA = """
CREATE TABLE batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    bucket TEXT NOT NULL,
    model TEXT NOT NULL,
    inputs INTEGER NOT NULL,
    size INTEGER NOT NULL,
    submitted REAL NOT NULL,
    begun INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    leased_until REAL NOT NULL DEFAULT 0,
    expires REAL
);
CREATE INDEX unfinished ON batches (number) WHERE expires IS NULL;
CREATE INDEX finished ON batches (expires) WHERE expires IS NOT NULL;
CREATE INDEX of_bucket ON batches (bucket) WHERE expires IS NULL;
CREATE TABLE chunks (
    batch INTEGER NOT NULL REFERENCES batches (number) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    inputs BLOB,
    outcomes BLOB,
    failed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, place)
);
CREATE TABLE totals (bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0);
CREATE TRIGGER added AFTER INSERT ON batches BEGIN UPDATE totals SET bytes = bytes + NEW.size; END;
CREATE TRIGGER removed AFTER DELETE ON batches BEGIN UPDATE totals SET bytes = bytes - OLD.size; END;
CREATE TRIGGER resized AFTER UPDATE OF size ON batches
    BEGIN UPDATE totals SET bytes = bytes + NEW.size - OLD.size; END;
"""


def make_file(path: Path) -> os.stat_result:
    """Make an empty file that only its owner reads; SQLite gives its log the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def open_file(path: Path) -> sqlite3.Connection:
    """Open a file, and make its tables if it has none.

    Raises:
        sqlite3.Error: it is no file of this version, or cannot be used.
    """
    # Only the store's thread uses it; another may be the one that closes it.
    db = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    try:
        # Before the first table: the mode of a file cannot be changed later.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten: texts do not stay in free pages.
        db.execute("PRAGMA secure_delete = ON").fetchall()
        with transaction(db):
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}, not {_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Commit what is done inside, or nothing of it."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A failed COMMIT (a full disk) may have ended the transaction itself.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def empty_log(db: sqlite3.Connection) -> bool:
    """Move what the log holds into the file, and truncate the log: it still holds texts that were removed.

    Returns:
        False if other processes need the log now.

    Raises:
        sqlite3.Error: the disk failed. What was committed stands.
    """
    db.execute(f"PRAGMA busy_timeout = {_LOG_BUSY_MS}").fetchall()
    try:
        is_busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}").fetchall()
    return not is_busy


def shrink(db: sqlite3.Connection) -> bool:
    """Give a few free pages of the file back; return whether there are more.

    Raises:
        sqlite3.Error: the disk failed, or another process was writing for too long.
    """
    (before,) = db.execute("PRAGMA freelist_count").fetchone()
    # `execute` would stop after the first page: it is a row without columns.
    db.executescript(f"PRAGMA incremental_vacuum({_STEP_PAGES})")
    (after,) = db.execute("PRAGMA freelist_count").fetchone()
    return bool(before > after > 0)

"""Batches in a file of SQLite, for the processes of one host.

The file is in WAL mode with ``synchronous=FULL``: a transaction is on the disk when it returns, so what was
accepted survives kill -9 and the loss of power. It is opened when the first batch arrives or when it exists;
a gateway without queued batches never makes it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from gateway.batches.store import (
    BatchSummary,
    ClaimedBatch,
    FinishedBatch,
    NewBatch,
    PendingBatch,
    StoreLimits,
    StoreStats,
)
from gateway.domain.errors import BatchQueueFull, BatchStoreUnavailable

_log = logging.getLogger("tritonflare.batches")

FILE = "batches.sqlite3"
_VERSION = 1
_BUSY_S = 5.0
"""How long a transaction waits for that of another process."""
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
CREATE INDEX of_account ON batches (account, model);
CREATE TABLE chunks (
    batch INTEGER NOT NULL REFERENCES batches (number) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    inputs BLOB,
    outcomes BLOB,
    failed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, place)
);
"""

_Result = TypeVar("_Result")


class SqliteStore:
    """A BatchStore in a folder; see `BatchStore` for its methods.

    All calls run in one thread of their own, so that a slow disk never holds up the event loop.

    Args:
        folder: made when needed, for its owner alone.
        limits: see `StoreLimits`.
        clock: seconds since the epoch; processes and restarts share it.
    """

    def __init__(self, folder: Path, limits: StoreLimits, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "batches")
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        """Device and inode of the open file."""
        self._is_failing = False
        self._is_closed = False

    async def check_room(self, bucket: str, size: int) -> None:
        """See `BatchStore`."""
        if size > self._limits.batch_store_bytes:
            raise BatchQueueFull
        await self._run(lambda db: self._check_room(db, bucket, size), None)

    async def submit(self, batch: NewBatch) -> None:
        """See `BatchStore`."""

        def insert(db: sqlite3.Connection) -> None:
            with _transaction(db):
                self._check_room(db, batch.bucket, batch.size)
                number = db.execute(
                    "INSERT INTO batches (id, account, bucket, model, inputs, size, submitted)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        batch.id,
                        batch.account,
                        batch.bucket,
                        batch.model,
                        batch.inputs,
                        batch.size,
                        self._clock(),
                    ),
                ).lastrowid
                db.executemany(
                    "INSERT INTO chunks (batch, place, inputs) VALUES (?, ?, ?)",
                    ((number, place, chunk) for place, chunk in enumerate(batch.chunks)),
                )

        await self._run(insert, None, makes_file=True)

    def _check_room(self, db: sqlite3.Connection, bucket: str, size: int) -> None:
        waiting, used = db.execute(
            "SELECT count(CASE WHEN bucket = ? AND expires IS NULL THEN 1 END), coalesce(sum(size), 0)"
            " FROM batches",
            (bucket,),
        ).fetchone()
        if waiting >= self._limits.max_queued_batches or used + size > self._limits.batch_store_bytes:
            raise BatchQueueFull

    async def find(self, account: str, batch_id: str) -> PendingBatch | FinishedBatch | None:
        """See `BatchStore`."""

        def read(db: sqlite3.Connection) -> PendingBatch | FinishedBatch | None:
            with _transaction(db, "DEFERRED"):
                found = db.execute(
                    "SELECT number, model, begun, expires FROM batches WHERE id = ? AND account = ?",
                    (batch_id, account),
                ).fetchone()
                if found is None:
                    return None
                number, model, begun, expires = found
                if expires is None:
                    return PendingBatch(batch_id, model, bool(begun))
                if expires <= self._clock():
                    return None
                chunks = db.execute("SELECT outcomes FROM chunks WHERE batch = ? ORDER BY place", (number,))
                return FinishedBatch(batch_id, model, [outcomes for (outcomes,) in chunks])

        return await self._run(read, None)

    async def has_batch_for(self, account: str, model: str) -> bool:
        """See `BatchStore`."""
        query = "SELECT EXISTS (SELECT 1 FROM batches WHERE account = ? AND model = ?)"
        return await self._run(lambda db: bool(db.execute(query, (account, model)).fetchone()[0]), False)

    async def claim(self, owner: str, lease_s: float, skip: Collection[str] = ()) -> ClaimedBatch | None:
        """See `BatchStore`."""

        def take(db: sqlite3.Connection) -> ClaimedBatch | None:
            with _transaction(db):
                now = self._clock()
                # A lease that ends far later than any can is from before the clock was set back.
                found = db.execute(
                    "SELECT number, id, model FROM batches WHERE expires IS NULL"
                    " AND (owner IS NULL OR leased_until <= ? OR leased_until > ?)"
                    " AND model NOT IN (SELECT value FROM json_each(?)) ORDER BY number LIMIT 1",
                    (now, now + 2 * lease_s, json.dumps(list(skip))),
                ).fetchone()
                if found is None:
                    return None
                number, batch_id, model = found
                db.execute(
                    "UPDATE batches SET owner = ?, leased_until = ?, begun = 1 WHERE number = ?",
                    (owner, now + lease_s, number),
                )
                waiting = db.execute(
                    "SELECT place FROM chunks WHERE batch = ? AND outcomes IS NULL ORDER BY place", (number,)
                )
                return ClaimedBatch(batch_id, model, [place for (place,) in waiting])

        return await self._run(take, None)

    async def renew(self, batch_id: str, owner: str, lease_s: float) -> bool:
        """See `BatchStore`."""

        def extend(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE batches SET leased_until = ? WHERE id = ? AND owner = ? AND expires IS NULL",
                (self._clock() + lease_s, batch_id, owner),
            )
            return changed.rowcount > 0

        return await self._run(extend, False)

    async def inputs(self, batch_id: str, place: int) -> bytes | None:
        """See `BatchStore`."""

        def read(db: sqlite3.Connection) -> bytes | None:
            found = db.execute(
                "SELECT chunks.inputs FROM chunks JOIN batches ON number = batch WHERE id = ? AND place = ?",
                (batch_id, place),
            ).fetchone()
            return None if found is None else found[0]

        return await self._run(read, None)

    async def save(self, batch_id: str, place: int, outcomes: bytes, failed: int) -> None:
        """See `BatchStore`."""
        await self._run(
            lambda db: db.execute(
                "UPDATE chunks SET outcomes = ?, failed = ?, inputs = NULL"
                " WHERE batch = (SELECT number FROM batches WHERE id = ?) AND place = ? AND outcomes IS NULL",
                (outcomes, failed, batch_id, place),
            ),
            None,
        )

    async def finish(self, batch_id: str) -> BatchSummary | None:
        """See `BatchStore`."""

        def close(db: sqlite3.Connection) -> BatchSummary | None:
            now = self._clock()
            with _transaction(db):
                found = db.execute(
                    "SELECT number, model, batches.inputs, submitted, sum(chunks.outcomes IS NULL),"
                    " sum(length(outcomes)), sum(failed) FROM batches JOIN chunks ON batch = number"
                    " WHERE id = ? AND expires IS NULL GROUP BY number",
                    (batch_id,),
                ).fetchone()
                if found is None or found[4]:
                    return None
                number, model, inputs, submitted, _, size, failed = found
                db.execute(
                    "UPDATE batches SET expires = ?, size = ?, owner = NULL WHERE number = ?",
                    (now + self._limits.batch_keep_s, size, number),
                )
            # The log still holds the texts.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return BatchSummary(model, inputs, failed, max(0.0, now - submitted))

        return await self._run(close, None)

    async def release(self, batch_id: str, owner: str) -> None:
        """See `BatchStore`."""
        await self._run(
            lambda db: db.execute(
                "UPDATE batches SET owner = NULL, leased_until = 0 WHERE id = ? AND owner = ?",
                (batch_id, owner),
            ),
            None,
        )

    async def remove_expired(self) -> None:
        """See `BatchStore`."""

        def remove(db: sqlite3.Connection) -> None:
            removed = db.execute("DELETE FROM batches WHERE expires <= ?", (self._clock(),))
            if removed.rowcount:
                db.execute("PRAGMA incremental_vacuum").fetchall()
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        await self._run(remove, None)

    async def stats(self) -> StoreStats:
        """See `BatchStore`."""

        def count(db: sqlite3.Connection) -> StoreStats:
            queued, running, oldest = db.execute(
                "SELECT count(*) - count(owner), count(owner), min(submitted) FROM batches"
                " WHERE expires IS NULL"
            ).fetchone()
            return StoreStats(queued, running, max(0.0, self._clock() - oldest) if oldest else 0.0)

        return await self._run(count, StoreStats())

    async def close(self) -> None:
        """See `BatchStore`."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown(wait=False)

    async def _run(
        self,
        work: Callable[[sqlite3.Connection], _Result],
        without_file: _Result,
        *,
        makes_file: bool = False,
    ) -> _Result:
        """Do ``work`` in the thread; ``without_file`` is the result if there is no file and none is made.

        Raises:
            BatchStoreUnavailable: SQLite or the disk failed.
        """

        def run() -> _Result:
            db = self._connect(makes_file)
            return without_file if db is None else work(db)

        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except (sqlite3.Error, OSError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            if not self._is_failing:
                _log.warning("the file of queued batches cannot be used: %s", reason)
            self._is_failing = True
            raise BatchStoreUnavailable from exc
        if self._is_failing and makes_file:
            _log.info("the file of queued batches can be used again")
            self._is_failing = False
        return result

    def _connect(self, makes_file: bool) -> sqlite3.Connection | None:
        """Return a connection to the file as it is now; it may have been removed and made anew."""
        path = self._folder / FILE
        try:
            found = path.stat()
        except FileNotFoundError:
            self._disconnect()
            if not makes_file:
                return None
            found = _make(path)
        if self._connection is not None and self._file == (found.st_dev, found.st_ino):
            return self._connection
        self._disconnect()
        self._connection = _open(path)
        self._file = (found.st_dev, found.st_ino)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = None


def _make(path: Path) -> os.stat_result:
    """Make an empty file that only its owner reads; SQLite gives its log the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> sqlite3.Connection:
    # Only the store's thread uses it; another may be the one that closes it.
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        # Before the first table: the mode of a file cannot be changed later.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten: texts do not stay in free pages.
        db.execute("PRAGMA secure_delete = ON").fetchall()
        with _transaction(db):
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
def _transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
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

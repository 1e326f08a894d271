"""Batches in a file of SQLite, for the processes of one host.

The file is in WAL mode with ``synchronous=FULL``: a transaction is on the disk when it returns, so what was
accepted survives kill -9 and the loss of power. It is opened when the first batch arrives or when it exists;
a gateway without queued batches never makes it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from gateway.batches.sqlite_file import FILE, LOG, empty_log, make_file, open_file, shrink, transaction
from gateway.batches.store import (
    BATCH_BYTES,
    CHUNK_BYTES,
    PAGE_BYTES,
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

_STEP_BATCHES = 200
_STEP_BYTES = 16_000_000
"""What is removed in one transaction."""
_PAUSE_S = 0.01

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
        self._is_log_failing = False
        self._is_log_due = False
        """Whether `_empty_log` is about to run."""
        self._is_closed = False

    async def check_room(self, bucket: str, size: int) -> None:
        """See `BatchStore`."""
        if size > self._limits.batch_store_bytes:
            raise BatchQueueFull
        await self._run(lambda db: self._check_room(db, bucket, size), None)

    async def submit(self, batch: NewBatch) -> None:
        """See `BatchStore`."""

        def insert(db: sqlite3.Connection) -> None:
            with transaction(db):
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
            "SELECT (SELECT count(*) FROM batches WHERE bucket = ? AND expires IS NULL), bytes FROM totals",
            (bucket,),
        ).fetchone()
        if waiting >= self._limits.max_queued_batches or used + size > self._limits.batch_store_bytes:
            raise BatchQueueFull

    async def find(self, account: str, batch_id: str) -> PendingBatch | FinishedBatch | None:
        """See `BatchStore`."""

        def read(db: sqlite3.Connection) -> PendingBatch | FinishedBatch | None:
            with transaction(db, "DEFERRED"):
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

    async def claim(self, owner: str, lease_s: float, skip: Collection[str] = ()) -> ClaimedBatch | None:
        """See `BatchStore`."""

        def take(db: sqlite3.Connection) -> ClaimedBatch | None:
            with transaction(db):
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
            with transaction(db):
                found = db.execute(
                    "SELECT number, model, batches.inputs, submitted, sum(chunks.outcomes IS NULL),"
                    # As `kept_bytes` counts them.
                    " ? + sum(length(outcomes) + min(length(outcomes), ?) + ?), sum(failed)"
                    " FROM batches JOIN chunks ON batch = number"
                    " WHERE id = ? AND expires IS NULL GROUP BY number",
                    (BATCH_BYTES, PAGE_BYTES, CHUNK_BYTES, batch_id),
                ).fetchone()
                if found is None or found[4]:
                    return None
                number, model, inputs, submitted, _, size, failed = found
                db.execute(
                    "UPDATE batches SET expires = ?, size = ?, owner = NULL WHERE number = ?",
                    (now + self._limits.batch_keep_s, size, number),
                )
            if not self._is_log_due:
                # On its own, after this: the batch is finished, whatever becomes of the log.
                self._is_log_due = True
                self._thread.submit(self._empty_log)
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
        if await self._in_steps(self._remove_some):
            await self._in_steps(shrink)
        # Removed or not: it may have been needed by others when a batch was finished.
        await self._run(lambda db: self._empty_log(), None)

    def _remove_some(self, db: sqlite3.Connection) -> bool:
        """Remove a few expired batches; return whether there were any."""
        expired = db.execute(
            "SELECT number, size FROM batches WHERE expires <= ? ORDER BY expires LIMIT ?",
            (self._clock(), _STEP_BATCHES),
        ).fetchall()
        # At least one, and no more than can be overwritten while others wait.
        sizes = accumulate(size for _, size in expired)
        few = [(number,) for (number, _), size in zip(expired, sizes, strict=True) if size <= _STEP_BYTES]
        with transaction(db):
            db.executemany("DELETE FROM batches WHERE number = ?", few or [row[:1] for row in expired[:1]])
        return bool(expired)

    async def _in_steps(self, step: Callable[[sqlite3.Connection], bool]) -> bool:
        """Repeat ``step`` until it returns False; return whether it ever returned True.

        Others that write wait for one step at most: the file is theirs for as long as each took.
        """
        has_worked = False
        began = time.monotonic()
        while await self._run(step, False):
            has_worked = True
            await asyncio.sleep(max(_PAUSE_S, time.monotonic() - began))
            began = time.monotonic()
        return has_worked

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
            BatchStoreUnavailable: SQLite or the disk failed, or the store is closed.
        """
        if self._is_closed:
            raise BatchStoreUnavailable

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
            found = make_file(path)
        if self._connection is not None and self._file == (found.st_dev, found.st_ino):
            return self._connection
        self._disconnect()
        self._connection = open_file(path)
        self._file = (found.st_dev, found.st_ino)
        # That of a process that was killed holds its texts still.
        self._empty_log()
        return self._connection

    def _empty_log(self) -> None:
        """Remove texts that the log still holds; `remove_expired` tries again what fails."""
        self._is_log_due = False
        try:
            if self._connection is not None and (self._folder / LOG).stat().st_size:
                empty_log(self._connection)
            self._is_log_failing = False
        except FileNotFoundError:
            pass
        except (sqlite3.Error, OSError) as exc:
            if not self._is_log_failing:
                reason = exc.strerror if isinstance(exc, OSError) else str(exc)
                _log.warning("removed texts stay in the log of queued batches for now: %s", reason)
            self._is_log_failing = True

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = None

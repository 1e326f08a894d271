"""A run: rows are read ahead, asked in several requests at once, and written in order.

At most ``WINDOW_ROWS`` rows, and about ``_WINDOW_CHARACTERS`` of them, are held at once, however long
the input is.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from bulk.errors import BulkError, TableError
from bulk.journal import WINDOW_ROWS, Journal
from bulk.tables.table import Record, RecordWriter
from bulk.work import Result, Work

_READ_ROWS = 64
"""Rows that are read at once, in a thread: a pipe may be slow."""
_READ_CHARACTERS = 1 << 20
"""Fewer rows are read at once if they are so long."""
_WINDOW_CHARACTERS = 8 << 20
"""Of whole rows, not of their texts alone."""
_SYNC_EVERY_S = 0.5
_LAST_ANSWERS_S = 10.0
_MAX_REASONS = 1000


class Interrupted(BulkError):
    """The run was stopped before its end."""


@dataclass
class Summary:
    """What became of the rows."""

    rows: int = 0
    failed: int = 0
    unanswered: int = 0
    """Of those that failed, the rows that another run asks about again."""
    truncated: int = 0
    restored: int = 0
    """Rows whose answers came from the journal."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of failures; those after the first ``_MAX_REASONS`` different ones count as ``other``."""

    def count(self, result: Result) -> None:
        """Count a row that is written."""
        self.rows += 1
        self.truncated += result.truncated
        self.unanswered += not result.is_final
        if result.error is not None:
            self.failed += 1
            known = result.error in self.reasons or len(self.reasons) < _MAX_REASONS
            self.reasons[result.error if known else "other"] += 1


@dataclass(slots=True)
class _Row:
    record: Record
    size: int
    result: Result | None = None


class Run:
    """One input from its first row to its last."""

    def __init__(
        self,
        records: Iterator[Record],
        writer: RecordWriter,
        work: Work,
        journal: Journal | None,
        *,
        concurrency: int,
        on_progress: Callable[[Summary], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            records: the rows.
            writer: where they go.
            work: asks for them.
            journal: what was answered before, and where answers are noted; None notes nothing.
            concurrency: requests under way at once.
            on_progress: called after rows were written.
        """
        self._records = records
        self._writer = writer
        self._work = work
        self._journal = journal
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._summary = Summary()
        self._window: deque[_Row] = deque()
        self._pending: dict[int, _Row] = {}
        self._characters = 0
        self._ready: deque[list[Record]] = deque()
        self._asking: dict[asyncio.Task[list[Result]], list[Record]] = {}
        self._has_ended = False
        self._stop = asyncio.Event()

    async def __call__(self, stop: asyncio.Event) -> Summary:
        """Run to the end, or until ``stop`` is set; then wait a little for what is under way and note it.

        Raises:
            Interrupted: ``stop`` was set.
            BulkError: input, output, journal or server do not allow to go on. What was answered is noted.
        """
        self._stop = stop
        stopping = asyncio.create_task(stop.wait())
        syncing = asyncio.create_task(self._sync_often())
        try:
            while not (self._has_ended and not self._window):
                if stop.is_set():
                    raise Interrupted(f"interrupted after {self._summary.rows} rows")
                if syncing.done():
                    syncing.result()
                await self._fill()
                self._start()
                if self._asking and not (self._window and self._window[0].result is not None):
                    await asyncio.wait({*self._asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    self._take({task for task in self._asking if task.done()})
                self._write()
            self._writer.close()
        except BaseException:
            await self._take_last_answers()
            raise
        finally:
            for task in (stopping, syncing):
                task.cancel()
            await asyncio.gather(stopping, syncing, return_exceptions=True)
        return self._summary

    async def _fill(self) -> None:
        """Read until there is enough to ask."""
        while (
            not self._has_ended
            and not self._stop.is_set()
            and len(self._ready) < self._concurrency
            and len(self._window) + _READ_ROWS <= WINDOW_ROWS
            and self._characters < _WINDOW_CHARACTERS
        ):
            try:
                records = await asyncio.to_thread(self._read)
            except TableError:
                if self._stop.is_set():  # a pipe was left in the middle of a row
                    raise Interrupted(f"interrupted after {self._summary.rows} rows") from None
                raise
            for record in records:
                self._add(record)
            if self._window and self._window[0].result is not None:
                self._write()
        # The rest of the file, or rows that wait for company while the window is full.
        if self._has_ended or not (self._ready or self._asking):
            self._ready.extend(self._work.flush())

    def _read(self) -> list[Record]:
        records: list[Record] = []
        characters = 0
        while len(records) < _READ_ROWS and characters < _READ_CHARACTERS:
            record = next(self._records, None)
            if record is None:
                self._has_ended = True
                break
            records.append(record)
            characters += _size(record)
        return records

    def _add(self, record: Record) -> None:
        row = _Row(record, _size(record))
        self._window.append(row)
        self._characters += row.size
        if record.is_blank:
            row.result = Result(())
        elif record.problem is not None:
            row.result = self._work.failed(record.problem)
        elif not all(record.texts):
            row.result = self._work.failed("no text")
        elif self._journal is not None and (values := self._journal.take(record.number)) is not None:
            row.result = self._work.restored(values)
            self._summary.restored += 1
        else:
            self._pending[record.number] = row
            self._ready.extend(self._work.add(record))

    def _start(self) -> None:
        while self._ready and len(self._asking) < self._concurrency:
            records = self._ready.popleft()
            self._asking[asyncio.create_task(self._work.ask(records))] = records

    def _take(self, done: set[asyncio.Task[list[Result]]]) -> None:
        """Note the answers, then raise what went wrong, if anything did."""
        problem: BaseException | None = None
        for task in done:
            records = self._asking.pop(task)
            if (error := task.exception()) is not None:
                problem = error
                continue
            results = task.result()
            if self._journal is not None:
                answered = [
                    (record.number, result.values)
                    for record, result in zip(records, results, strict=True)
                    if result.is_final
                ]
                if answered:
                    self._journal.add(answered)
            for record, result in zip(records, results, strict=True):
                self._pending.pop(record.number).result = result
        if problem is not None:
            raise problem

    def _write(self) -> None:
        window = self._window
        while window and (result := window[0].result) is not None:
            row = window.popleft()
            self._characters -= row.size
            self._writer.write(row.record, result.values)
            if not row.record.is_blank:
                self._summary.count(result)
        self._on_progress(self._summary)

    async def _take_last_answers(self) -> None:
        """Wait for what is under way, so that it is not asked again; cancel what takes long."""
        if not self._asking:
            return
        done, late = await asyncio.wait(self._asking, timeout=_LAST_ANSWERS_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            with suppress(BulkError):  # the first one is reported
                self._take({task})

    async def _sync_often(self) -> None:
        while self._journal is not None:
            await asyncio.sleep(_SYNC_EVERY_S)
            await asyncio.to_thread(self._journal.sync)


def _size(record: Record) -> int:
    return record.size + sum(len(text or "") for text in record.texts)

"""Runs: order, bounds, and what happens when something ends them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bulk.errors import TableError, Unavailable
from bulk.journal import WINDOW_ROWS, Journal
from bulk.run import Interrupted, Run
from bulk.tables import ReadOptions, Table, open_table
from bulk.tables.table import Record, Value
from bulk.work import Result, Values

IDENTITY = {"input": "x"}


class Doubling:
    """Groups three rows; a row's value is its text twice."""

    added: Sequence[str] = ("twice", "error")

    def __init__(self, fail_after: int | None = None, seed: int = 0) -> None:
        self.asked: list[int] = []
        self.most_at_once = 0
        self._at_once = 0
        self._waiting: list[Record] = []
        self._fail_after = fail_after
        self._chance = random.Random(seed)

    def add(self, record: Record) -> list[list[Record]]:
        self._waiting.append(record)
        return self.flush() if len(self._waiting) == 3 else []

    def flush(self) -> list[list[Record]]:
        rest, self._waiting = self._waiting, []
        return [rest] if rest else []

    async def ask(self, records: Sequence[Record]) -> list[Result]:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(self._chance.random() * 0.002)
        self._at_once -= 1
        if self._fail_after is not None and len(self.asked) >= self._fail_after:
            raise Unavailable("gone")
        self.asked += [record.number for record in records]
        return [Result([(record.texts[0] or "") * 2, None]) for record in records]

    def failed(self, reason: str) -> Result:
        return Result([None, reason], error=reason)

    def restored(self, values: Values) -> Result:
        return Result(values)


class Written:
    """Keeps what is written, and how far reading was ahead of it."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, list[Value]]] = []
        self.read = 0
        self.furthest_ahead = 0

    def write(self, record: Record, values: Sequence[Value]) -> None:
        self.furthest_ahead = max(self.furthest_ahead, self.read - len(self.rows))
        self.rows.append((record.number, list(values)))

    def close(self) -> None:
        pass

    def records(self, count: int) -> Iterator[Record]:
        for number in range(count):
            self.read = number + 1
            yield Record(number, (None if number % 10 == 7 else f"t{number}",), None)


def expected(count: int) -> list[tuple[int, list[Value]]]:
    return [(n, [None, "no text"] if n % 10 == 7 else [f"t{n}t{n}", None]) for n in range(count)]


async def run(
    work: Doubling, journal: Journal | None, count: int = 500, stop: asyncio.Event | None = None
) -> Written:
    written = Written()
    run = Run(written.records(count), written, work, journal, concurrency=5)
    await run(stop or asyncio.Event())
    return written


async def test_rows_are_written_in_order_whichever_is_answered_first() -> None:
    work = Doubling()
    written = await run(work, None)
    assert written.rows == expected(500)
    assert sorted(work.asked) == [n for n in range(500) if n % 10 != 7]
    assert work.asked != sorted(work.asked)
    assert work.most_at_once == 5


async def test_what_was_answered_is_not_asked_again_however_often_it_ends(tmp_path: Path) -> None:
    asked: list[int] = []
    for end in (50, 0, 120, 7, None):
        journal = Journal(tmp_path / "journal", IDENTITY)
        work = Doubling(fail_after=end, seed=end or 0)
        try:
            written = await run(work, journal)
        except Unavailable:
            pass
        else:
            assert end is None
        finally:
            journal.close()
            asked += work.asked
    assert written.rows == expected(500)
    assert sorted(asked) == [n for n in range(500) if n % 10 != 7]


async def test_a_stop_waits_for_what_is_under_way(tmp_path: Path) -> None:
    journal, stop, work = Journal(tmp_path / "journal", IDENTITY), asyncio.Event(), Doubling()
    asyncio.get_running_loop().call_later(0.02, stop.set)
    with pytest.raises(Interrupted):
        await run(work, journal, 100_000, stop)
    journal.close()
    journal = Journal(tmp_path / "journal", IDENTITY)
    noted = [number for number in range(max(work.asked) + 1) if journal.take(number) is not None]
    assert noted == sorted(work.asked)
    journal.close()


async def test_reading_is_never_far_ahead_of_writing() -> None:
    written = Written()

    class SlowFirst(Doubling):
        async def ask(self, records: Sequence[Record]) -> list[Result]:
            if records[0].number == 0:
                await asyncio.sleep(0.5)
            self._chance = random.Random(0)
            return await super().ask(records)

    await Run(written.records(3 * WINDOW_ROWS), written, SlowFirst(), None, concurrency=50)(asyncio.Event())
    assert written.rows == expected(3 * WINDOW_ROWS)
    assert WINDOW_ROWS / 2 < written.furthest_ahead <= WINDOW_ROWS


async def test_what_rows_hold_beside_their_texts_counts_too(tmp_path: Path) -> None:
    """A column that is not asked for is held until its row is written."""
    path = tmp_path / "a.csv"
    rows, blob = 300, "x" * 200_000
    path.write_text("text,blob\n" + "".join(f"t{number},{blob}\n" for number in range(rows)))
    read = written = most = 0

    def records(table: Table) -> Iterator[Record]:
        nonlocal read, most
        for record in table.records([0]):
            read += 1
            most = max(most, read - written)
            yield record

    class Counting:
        def write(self, record: Record, values: Sequence[Value]) -> None:
            nonlocal written
            assert record.source[0].startswith(f"t{written},")
            written += 1

        def close(self) -> None:
            pass

    class SlowFirst(Doubling):
        async def ask(self, records: Sequence[Record]) -> list[Result]:
            if records[0].number == 0:
                await asyncio.sleep(0.5)
            return await super().ask(records)

    source, table = open_table(path, ReadOptions())
    with source.stream:
        await Run(records(table), Counting(), SlowFirst(), None, concurrency=200)(asyncio.Event())
    assert written == rows
    # 8 Mi characters, what is read at once behind them, and a row.
    assert 30 < most <= (9 << 20) // len(blob) + 2


async def test_a_row_that_an_interruption_cut_is_no_malformed_file() -> None:
    stop = asyncio.Event()

    def records() -> Iterator[Record]:
        yield from Written().records(100)
        stop.set()
        raise TableError("a quote is not closed")

    with pytest.raises(Interrupted):
        await Run(records(), Written(), Doubling(), None, concurrency=5)(stop)

"""The file of SQLite: durability, modes, what is left of texts, and disks that fail."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.batches.sqlite_file import FILE, LOG
from gateway.batches.sqlite_store import SqliteStore
from gateway.batches.store import FinishedBatch, NewBatch, PendingBatch, StoreLimits, StoreStats
from gateway.domain.errors import BatchQueueFull, BatchStoreUnavailable
from tests.gateway.batches.conftest import ROOMY, a_batch, finish, sqlite_in

SECRET = b"nobody may find this sentence"


async def test_without_a_batch_there_is_no_file(tmp_path: Path) -> None:
    async with sqlite_in(tmp_path / "state") as store:
        assert await store.claim("r", 1) is None
        assert await store.find("a", "batch-0") is None
        assert await store.stats() == StoreStats()
        await store.check_room("a", 1)
        await store.remove_expired()
    assert not (tmp_path / "state").exists()


async def test_only_its_owner_reads_the_folder_and_its_files(tmp_path: Path) -> None:
    async with sqlite_in(tmp_path / "state") as store:
        await store.submit(a_batch())
        files = sorted((tmp_path / "state").iterdir())
        assert [file.name for file in files] == [FILE, f"{FILE}-shm", f"{FILE}-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


async def test_texts_are_on_the_disk_until_the_batch_is_finished_and_not_after(tmp_path: Path) -> None:
    def places() -> list[str]:
        return [file.name for file in tmp_path.iterdir() if SECRET in file.read_bytes()]

    async with sqlite_in(tmp_path) as store:
        await store.submit(a_batch(0, SECRET * 400, SECRET))
        assert places() != []
        await finish(store)
        assert isinstance(await store.find("a", "batch-0"), FinishedBatch)
        assert places() == []


async def test_a_reader_that_holds_the_log_delays_nothing_and_its_texts_go_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_in(tmp_path) as store:
        await store.submit(a_batch(0, SECRET * 400, SECRET))
        reader = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM batches").fetchone()
        began = time.monotonic()
        assert await finish(store) is not None
        await store.submit(a_batch(1))
        assert time.monotonic() - began < 2
        assert SECRET in (tmp_path / LOG).read_bytes()
        reader.execute("COMMIT")
        reader.close()
        await store.remove_expired()
        assert [file.name for file in tmp_path.iterdir() if SECRET in file.read_bytes()] == []
    assert caplog.records == []


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.batches.sqlite_store import SqliteStore
from tests.gateway.batches.conftest import ROOMY, a_batch

async def main():
    store = SqliteStore(Path(sys.argv[1]), ROOMY)
    await store.submit(a_batch(0, sys.argv[2].encode()))
    await store.save("batch-0", 0, b"one", 0)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_log_of_a_process_that_was_killed_is_emptied_by_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), SECRET.decode()], check=False, timeout=60)
    assert SECRET in (tmp_path / LOG).read_bytes()
    async with sqlite_in(tmp_path) as store:
        assert (await store.stats()).queued == 1
        assert [file.name for file in tmp_path.iterdir() if SECRET in file.read_bytes()] == []


async def test_a_batch_is_finished_whatever_becomes_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(action: int, name: str | None, *_: str | None) -> int:
        is_checkpoint = action == sqlite3.SQLITE_PRAGMA and name == "wal_checkpoint"
        return sqlite3.SQLITE_DENY if is_checkpoint else sqlite3.SQLITE_OK

    async with sqlite_in(tmp_path) as store:
        await store.submit(a_batch(0, SECRET))
        await store._run(lambda db: db.set_authorizer(refuse), None)
        await store.save("batch-0", 0, b"one", 0)
        summary = await store.finish("batch-0")
        assert summary is not None
        assert summary.inputs == 2
        await store.remove_expired()
        await store.remove_expired()
        await store._run(lambda db: db.set_authorizer(None), None)
        await store.remove_expired()
        assert SECRET not in (tmp_path / LOG).read_bytes()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["removed texts stay in the log of queued batches for now: not authorized"]


async def test_results_are_not_on_the_disk_after_they_have_expired(tmp_path: Path) -> None:
    now = [1000.0]
    store = SqliteStore(tmp_path, ROOMY, lambda: now[0])
    await store.submit(a_batch())
    await store.save("batch-0", 0, SECRET * 400, 0)
    await store.save("batch-0", 1, SECRET, 0)
    await store.finish("batch-0")
    await store.stats()  # the log is emptied before
    size = (tmp_path / FILE).stat().st_size
    now[0] += ROOMY.batch_keep_s + 1
    await store.remove_expired()
    assert [file.name for file in tmp_path.iterdir() if SECRET in file.read_bytes()] == []
    assert (tmp_path / FILE).stat().st_size < size
    await store.close()


async def test_many_expired_results_are_removed_in_steps_between_which_others_write(tmp_path: Path) -> None:
    now, many = [1000.0], 1000
    store = SqliteStore(tmp_path, ROOMY, lambda: now[0])
    await store.submit(a_batch())
    watching = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    watching.execute("BEGIN")
    watching.executemany(
        "INSERT INTO batches (id, account, bucket, model, inputs, size, submitted, expires)"
        " VALUES (?, 'a', 'a', 'm', 1, 4000, 1, ?)",
        ((f"old {number}", 999.0) for number in range(many)),
    )
    watching.execute(
        "INSERT INTO chunks (batch, place, outcomes) SELECT number, 0, zeroblob(4000) FROM batches"
        " WHERE expires IS NOT NULL"
    )
    watching.execute("COMMIT")
    removing = asyncio.create_task(store.remove_expired())
    seen = set()
    while not removing.done():
        await asyncio.sleep(0.001)
        (left,) = watching.execute("SELECT count(*) FROM batches WHERE expires IS NOT NULL").fetchone()
        (free,) = watching.execute("PRAGMA freelist_count").fetchone()
        seen.add((left, free))
    await removing
    assert {0 < left < many for left, _ in seen} == {True, False}
    assert len({free for left, free in seen if left == 0}) > 2
    assert (await store.find("a", "batch-0")) is not None
    assert (tmp_path / FILE).stat().st_size < 100_000
    watching.close()
    await store.close()


@pytest.mark.parametrize("chunks", [[95], [1400], [2100], [3000], [64] * 100, [8000] * 20])
async def test_the_file_does_not_outgrow_the_bound(tmp_path: Path, chunks: list[int]) -> None:
    limits = StoreLimits(1000, 400_000, 3600)
    async with sqlite_in(tmp_path, limits) as store:
        await store.stats()
        await store.submit(NewBatch("0" * 36, "a" * 70, "a" * 32, "@cf/a/model" * 4, 1, [b"a"]))
        await store.remove_expired()
        empty = (tmp_path / FILE).stat().st_size
        fitting = 0
        with suppress(BatchQueueFull):
            while fitting < 1000:
                batch = NewBatch(str(uuid4()), "a" * 70, "a" * 32, "@cf/a/model" * 4, 1, [b"a"] * len(chunks))
                await store.submit(batch)
                for place, size in enumerate(chunks):
                    await store.save(batch.id, place, b"x" * size, 0)
                await store.finish(batch.id)
                fitting += 1
        await store.remove_expired()
        assert 400_000 / 5 < (tmp_path / FILE).stat().st_size - empty < 400_000
        assert fitting < 1000


async def test_whether_there_is_room_is_known_without_a_look_at_every_batch(tmp_path: Path) -> None:
    async with sqlite_in(tmp_path) as store:
        await store.submit(a_batch())
        other = sqlite3.connect(tmp_path / FILE)
        with other:
            other.executemany(
                "INSERT INTO batches (id, account, bucket, model, inputs, size, submitted, expires)"
                " VALUES (?, 'a', 'a', 'm', 1, 1, 1, 9e12)",
                ((f"old {number}",) for number in range(2000)),
            )
        other.close()
        steps = []
        await store._run(lambda db: db.set_progress_handler(lambda: steps.append(100), 100), None)
        await store.check_room("a", 1)
        assert sum(steps) < 1000


async def test_a_clock_that_was_set_back_holds_no_batch(tmp_path: Path) -> None:
    now = [1000.0]
    store = SqliteStore(tmp_path, ROOMY, lambda: now[0])
    await store.submit(a_batch())
    assert await store.claim("r", 15) is not None
    now[0] -= 500
    assert await store.claim("next", 15) is not None
    await store.close()


_ACCEPTING = """
import asyncio, sys
from pathlib import Path
from gateway.batches.sqlite_store import SqliteStore
from tests.gateway.batches.conftest import ROOMY, a_batch

async def main():
    store = SqliteStore(Path(sys.argv[1]), ROOMY)
    for number in range(100):
        await store.submit(a_batch(number))
        print(number, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_what_was_accepted_survives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ACCEPTING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        accepted = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        accepted += [int(line) for line in process.stdout]
    async with sqlite_in(tmp_path) as store:
        for number in accepted:
            assert isinstance(await store.find("a", f"batch-{number}"), PendingBatch)
        assert len(accepted) <= (await store.stats()).queued <= len(accepted) + 1


async def test_a_slow_disk_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    async with sqlite_in(tmp_path) as store:
        await store.submit(a_batch(0))
        other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        submitting = asyncio.create_task(store.submit(a_batch(1)))
        longest = 0.0
        for _ in range(20):
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - began)
        assert not submitting.done()
        assert longest < 0.15
        other.execute("COMMIT")
        other.close()
        await submitting


_FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from gateway.batches.sqlite_store import SqliteStore
from gateway.domain.errors import BatchStoreUnavailable
from tests.gateway.batches.conftest import ROOMY, a_batch

async def main():
    store = SqliteStore(Path(sys.argv[1]), ROOMY)
    await store.submit(a_batch(0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    for number, chunk in ((1, b"x" * 1_000_000), (2, b"x")):
        try:
            await store.submit(a_batch(number, chunk))
            print("accepted", number)
        except BatchStoreUnavailable as error:
            print(error.status, error.code, error.retryable, error.retry_after_s)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    await store.submit(a_batch(3))
    print([await store.find("a", f"batch-{number}") is not None for number in range(4)])
    await store.close()

asyncio.run(main())
"""


def test_a_full_disk_is_a_clear_refusal_and_nothing_is_half_accepted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "503 3050 True 5.0",
        "accepted 2",
        "[True, False, True, True]",
    ], done.stderr


async def test_a_folder_that_cannot_be_written_refuses_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    async with sqlite_in(tmp_path / "file" / "state") as store:
        with caplog.at_level(logging.INFO, "tritonflare.batches"):
            for _ in range(3):
                with pytest.raises(BatchStoreUnavailable):
                    await store.submit(a_batch())
            (tmp_path / "file").unlink()
            await store.submit(a_batch())
    assert [record.getMessage() for record in caplog.records] == [
        "the file of queued batches cannot be used: Not a directory",
        "the file of queued batches can be used again",
    ]
    assert str(tmp_path) not in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no database, but long enough to look like one" * 100, "file is not a database"),
        (None, "version 99"),
    ],
)
async def test_a_file_that_is_none_of_ours_is_left_alone(
    tmp_path: Path, content: bytes | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / FILE
    if content is None:
        newer = sqlite3.connect(path)
        newer.execute("PRAGMA user_version = 99")
        newer.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    async with sqlite_in(tmp_path) as store:
        for _ in range(2):
            with pytest.raises(BatchStoreUnavailable):
                await store.submit(a_batch())
    assert reason in caplog.text
    if content is not None:
        assert path.read_bytes() == before


async def test_a_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    async with sqlite_in(tmp_path) as store:
        await store.submit(a_batch(0))
        for file in tmp_path.iterdir():
            file.unlink()
        assert await store.find("a", "batch-0") is None
        await store.submit(a_batch(1))
        assert os.path.exists(tmp_path / FILE)
        async with sqlite_in(tmp_path) as other:
            assert await other.find("a", "batch-1") is not None


async def test_ten_megabytes_are_accepted_and_read_again(tmp_path: Path) -> None:
    chunks = [bytes([place % 256]) * 64_000 for place in range(156)]
    async with sqlite_in(tmp_path) as store:
        await store.submit(NewBatch("big", "a", "a", "m", 156, chunks[:100]))
        assert [await store.inputs("big", place) for place in range(100)] == chunks[:100]

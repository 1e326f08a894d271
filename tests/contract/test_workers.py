"""Several processes on one port: connections, metrics, signals, deaths."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.contract.test_protocol import answer, post
from tests.support.fake_triton import FakeTriton, hold
from tests.support.harness import Client, running_gateway, settings_for, until, until_in_flight
from tests.support.worker_processes import COMMAND, ROOT, Supervised, environment_of, supervised_gateway

GOOD = {"text": "one two three"}
METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def opened(running: Supervised, count: int) -> AsyncIterator[list[Stream]]:
    """Connections of which each worker has some."""
    streams = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(count)]

    async def accepted() -> bool:
        return sum(running.connections(worker) for worker in running.workers) >= count

    try:
        await until(accepted)
        assert all(running.connections(worker) for worker in running.workers)
        yield streams
    finally:
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)


async def ask(stream: Stream, request: bytes) -> tuple[bytes, bytes]:
    stream[1].write(request)
    return await answer(stream[0])


def samples(page: bytes) -> dict[str, float]:
    """Name and labels → value."""
    lines = [line.rpartition(" ") for line in page.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def names(page: bytes) -> set[str]:
    """Names with labels of all but the times of creation, which several processes do not have."""
    return {name for name in samples(page) if "_created" not in name}


def descriptions(page: bytes) -> set[str]:
    return {line for line in page.decode().splitlines() if line.startswith("#")}


async def test_every_worker_answers_and_knows_what_all_of_them_counted(
    triton: FakeTriton, tmp_path: Path
) -> None:
    async with supervised_gateway(triton, tmp_path) as running, opened(running, 30) as streams:
        for stream in streams:
            head, body = await ask(stream, post())
            assert head.startswith(b"HTTP/1.1 200 "), body

        async def settled() -> bool:
            page = samples((await Client(running.port).get("/metrics")).body)
            return page["tritonflare_ready"] == 1 and page["tritonflare_requests_in_flight"] == 0

        # What other workers say of themselves may be a moment old; what they counted never is.
        await until(settled)
        pages = [(await ask(stream, METRICS))[1] for stream in streams]
        for page in pages:
            found = samples(page)
            assert [
                value for name, value in found.items() if name.startswith("tritonflare_requests_total")
            ] == [30]
            assert found["tritonflare_call_texts_sum"] >= 30  # canaries are texts, too
            assert found["tritonflare_worker_restarts_total"] == 0
            assert 0 < found["tritonflare_open_files_ratio"] < 0.8  # of the worst, not their sum
        async with running_gateway(settings_for(triton)) as alone:
            assert (await alone.client.run({"text": "good"})).status == 200
            page = (await alone.client.get("/metrics")).body
        # What is said of a process would be said of any of them.
        assert names(pages[0]) == {name for name in names(page) if not name.startswith("process_")}
        assert descriptions(pages[0]) < descriptions(page)

        refused = await start_and_fail(triton, tmp_path, GATEWAY_PORT=str(running.port))
        assert refused == (
            f"tritonflare: Cannot listen on 127.0.0.1 port {running.port}: Address already in use. "
            "Set GATEWAY_HOST and GATEWAY_PORT to an address that is free.\n"
        )


async def test_a_signal_to_all_processes_drains_every_worker(triton: FakeTriton, tmp_path: Path) -> None:
    async with supervised_gateway(triton, tmp_path) as running:
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        async with opened(running, 12) as streams:
            asking = [asyncio.create_task(ask(stream, post())) for stream in streams]
            await until_in_flight(Client(running.port), 12)
            # A terminal and a service manager signal the workers too.
            for worker in running.workers:
                worker.send_signal(signal.SIGTERM)
            running.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert running.process.poll() is None
            release.set()
            for head, _ in await asyncio.gather(*asking):
                assert head.startswith(b"HTTP/1.1 200 ")
            assert await asyncio.to_thread(running.process.wait, 10) == 0
            assert "worker" not in running.log.read_text()


async def test_a_second_signal_does_not_wait(triton: FakeTriton, tmp_path: Path) -> None:
    async with supervised_gateway(triton, tmp_path, GATEWAY_SHUTDOWN_DELAY_S="60") as running:
        triton.infer_fault = hold(asyncio.Event())
        async with opened(running, 12) as streams:
            asking = [asyncio.create_task(ask(stream, post())) for stream in streams]

            async def inferring() -> bool:
                return triton.running > 0

            await until(inferring)
            running.process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.2)
            assert await running.stop(signal.SIGINT) == 0
            for head, _ in await asyncio.gather(*asking):
                assert head.startswith(b"HTTP/1.1 503 ")


async def test_a_killed_worker_is_replaced_while_the_others_serve(triton: FakeTriton, tmp_path: Path) -> None:
    async with supervised_gateway(triton, tmp_path) as running:
        client = Client(running.port)
        for _ in range(10):
            assert (await client.run(GOOD)).status == 200
        killed, other = running.workers
        killed.kill()

        async def gone() -> bool:
            # Reaped, not only a zombie: until then some thread of it may keep the port open.
            return not psutil.pid_exists(killed.pid)

        await until(gone)
        asked = 10

        async def replaced() -> bool:
            nonlocal asked
            asked += 1
            assert (await client.run(GOOD)).status == 200
            workers = running.workers
            return len(workers) == 2 and all(map(running.listens, workers))

        await until(replaced, 30)
        assert other in running.workers
        async with opened(running, 12) as streams:
            pages = [samples((await ask(stream, METRICS))[1]) for stream in streams]
        for page in pages:
            total = sum(
                value for name, value in page.items() if name.startswith("tritonflare_requests_total")
            )
            assert total == asked
            assert page["tritonflare_worker_restarts_total"] == 1
        assert re.search(r"worker [01] ended \(signal 9\); restarting it in 0\.2 s", running.log.read_text())


async def test_a_worker_that_was_stopped_is_replaced_and_blocks_no_request(
    triton: FakeTriton, tmp_path: Path
) -> None:
    async with supervised_gateway(triton, tmp_path, GATEWAY_WORKER_TIMEOUT_S="3") as running:
        stopped, other = running.workers
        stopped.suspend()

        async def replaced() -> bool:
            workers = running.workers
            return stopped not in workers and len(workers) == 2 and all(map(running.listens, workers))

        await until(replaced, 30)
        assert other in running.workers
        client = Client(running.port)
        # Each is a connection of its own, and the kernel spreads them over both.
        for answer in await asyncio.gather(*(client.run(GOOD) for _ in range(16))):
            assert answer.status == 200
        assert re.search(
            r"worker [01] has answered no heartbeat for 3 s; killing it\n"
            r".* worker [01] ended \(signal 9\); restarting it in 0\.[12] s",
            running.log.read_text(),
        )


async def test_a_group_that_was_stopped_goes_on_with_the_same_workers(
    triton: FakeTriton, tmp_path: Path
) -> None:
    async with supervised_gateway(triton, tmp_path, GATEWAY_WORKER_TIMEOUT_S="2") as running:
        before = running.workers
        family = [psutil.Process(running.process.pid), *before]
        for process in family:
            process.suspend()
        await asyncio.sleep(4)
        for process in family:  # the supervisor first: it looks at once
            process.resume()
        await asyncio.sleep(2)
        assert running.workers == before
        assert "worker" not in running.log.read_text()


async def test_a_killed_supervisor_leaves_nothing_behind(triton: FakeTriton, tmp_path: Path) -> None:
    async with supervised_gateway(triton, tmp_path) as running:
        family = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        await asyncio.to_thread(running.process.wait, 5)
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, 10)
        assert alive == []
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)


async def start_and_fail(triton: FakeTriton, tmp_path: Path, **settings: str) -> str:
    """Start one that cannot; return what it says."""
    ended = await asyncio.to_thread(
        subprocess.run,
        COMMAND,
        env=environment_of(triton, tmp_path, **settings),
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    return ended.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a part of the metrics."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting needs root and the right to do so")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, *, but: int = 0) -> None:
    with (folder / "ballast").open("ab", buffering=0) as ballast:
        with suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        os.ftruncate(ballast.fileno(), ballast.tell() - but)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_full_disk_for_temporary_files_ends_no_worker(
    triton: FakeTriton, tmp_path: Path, disk: Path, moment: str
) -> None:
    if moment == "before":
        fill(disk, but=32 * 1024)  # a folder that takes nothing at all is no folder for temporary files
    async with supervised_gateway(triton, tmp_path, TMPDIR=str(disk)) as running:
        fill(disk)
        before = running.workers
        async with opened(running, 12) as streams:
            for stream in streams:
                for path in (b"/a/b", b"/c"):  # other labels, which need room of their own
                    await ask(stream, b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                assert (await ask(stream, post()))[0].startswith(b"HTTP/1.1 200 ")
            pages = [await ask(stream, METRICS) for stream in streams]
        assert running.workers == before
        for head, body in pages:
            assert head.startswith(b"HTTP/1.1 200 ")
            assert sum(
                v for name, v in samples(body).items() if name.startswith("tritonflare_requests_total")
            )
        said = running.log.read_text().count("metrics cannot be written to TMPDIR (No space left on device)")
        assert said == (moment == "before")  # workers are told what the supervisor has said
    assert [path.name for path in disk.iterdir()] == ["ballast"]


async def test_ready_is_1_wherever_readyz_is_200_while_workers_start_and_are_replaced(
    triton: FakeTriton, tmp_path: Path
) -> None:
    async with supervised_gateway(triton, tmp_path) as running:
        client = Client(running.port)

        async def agrees() -> None:
            if (await client.get("/readyz")).status == 200:
                assert await client.metric("tritonflare_ready") == 1

        for _ in range(8):
            await agrees()
        killed = running.workers[0]
        killed.kill()

        async def replaced() -> bool:
            with suppress(ConnectionError, asyncio.IncompleteReadError):  # given to the one that ends
                await agrees()
            workers = running.workers
            return killed not in workers and len(workers) == 2 and all(map(running.listens, workers))

        await until(replaced, 30)
        for _ in range(8):
            await agrees()


async def test_what_makes_no_gateway_is_one_sentence(triton: FakeTriton, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        in_use, too_many, no_token = await asyncio.gather(
            start_and_fail(triton, tmp_path, GATEWAY_PORT=str(taken.getsockname()[1])),
            start_and_fail(triton, tmp_path, GATEWAY_REQUESTS_PER_MINUTE="2000"),
            start_and_fail(triton, tmp_path, GATEWAY_API_TOKENS=""),
        )
    assert in_use.startswith("tritonflare: Cannot listen on 127.0.0.1 port ")
    assert too_many.startswith("tritonflare: settings: requests_per_minute needs workers to be 1")
    assert no_token.startswith("tritonflare: No API token is configured")
    assert [text.count("\n") for text in (in_use, too_many, no_token)] == [1, 1, 1]

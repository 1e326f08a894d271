"""Several workers of one gateway share its batches."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.fake_triton import FakeTriton, hold
from tests.support.harness import Client, until
from tests.support.queued_batches import batch, fetch, submit
from tests.support.worker_processes import supervised_gateway


async def test_every_worker_answers_every_poll(triton: FakeTriton, tmp_path: Path) -> None:
    folder = str(tmp_path / "batches")
    async with supervised_gateway(triton, tmp_path, GATEWAY_BATCH_FOLDER=folder) as running:
        requests = [await submit(Client(running.port), batch(f"{n}", "b")) for n in range(10)]
        for request_id in requests:
            # Each poll has a connection of its own, and the kernel spreads them over the workers.
            answers = {(await fetch(Client(running.port), request_id)).body for _ in range(6)}
            assert len(answers) == 1
        assert await Client(running.port).metric("tritonflare_batches_accepted_total") == 10
        assert await Client(running.port).metric('tritonflare_batches_finished_total{result="ok"}') == 10


async def test_the_batch_of_a_killed_worker_is_taken_over(triton: FakeTriton, tmp_path: Path) -> None:
    folder = str(tmp_path / "batches")
    async with supervised_gateway(triton, tmp_path, GATEWAY_BATCH_FOLDER=folder) as running:
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        requests = [await submit(Client(running.port), batch(f"{n}")) for n in range(4)]

        async def all_workers_run_one() -> bool:
            return len(triton.texts) >= 2

        await until(all_workers_run_one)
        killed = running.workers
        for worker in killed:
            worker.kill()

        async def are_replaced() -> bool:
            alive = [worker for worker in running.workers if worker not in killed]
            return len(alive) == 2 and all(running.listens(worker) for worker in alive)

        await until(are_replaced, 30)
        triton.infer_fault = None
        release.set()
        for request_id in requests:
            answer = await fetch(Client(running.port), request_id, timeout_s=40)
            assert [entry["success"] for entry in answer.json["result"]["responses"]] == [True]
        assert "Traceback" not in running.log.read_text()

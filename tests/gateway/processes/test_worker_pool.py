"""The worker pool, with workers that misbehave; real processes, no gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from prometheus_client import values

from gateway.domain.errors import BackendUnavailable
from gateway.processes import worker_pool as workers
from gateway.processes import worker_process
from gateway.processes.messages import Ready, Refused
from gateway.processes.worker_control import WorkerSpec, report, worker_control
from gateway.processes.worker_pool import WorkerPool
from gateway.server.bind import bind
from gateway.settings import ConfigurationError, Settings

OTHER = "127.0.0.1:9999"


def refuse(spec: WorkerSpec) -> None:
    report(spec, Refused("The settings are wrong."))
    os._exit(2)


def end_at_start(spec: WorkerSpec) -> None:
    os._exit(3)


def hang(spec: WorkerSpec) -> None:
    """Be ready, and ignore every signal and message."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report(spec, Ready())
    time.sleep(60)


def refuse_when_it_replaces(spec: WorkerSpec) -> None:
    if spec.replaces:
        refuse(spec)
    report(spec, Ready())
    os._exit(0)


def follow(spec: WorkerSpec) -> None:
    async def wait() -> None:
        stop, at_once = asyncio.Event(), asyncio.Event()
        with worker_control(spec, stop, at_once):
            report(spec, Ready())
            await stop.wait()
            await at_once.wait()

    asyncio.run(wait())


def hand_over_if(spec: WorkerSpec, can: Callable[[str], bool]) -> None:
    async def hand_over(url: str) -> None:
        if not can(url):
            raise BackendUnavailable

    async def wait() -> None:
        stop, at_once = asyncio.Event(), asyncio.Event()
        with worker_control(spec, stop, at_once, hand_over):
            report(spec, Ready())
            await stop.wait()

    asyncio.run(wait())


def never_hand_over(spec: WorkerSpec) -> None:
    hand_over_if(spec, lambda url: False)


def hand_over_unless_first(spec: WorkerSpec) -> None:
    """The first cannot, and a replacement starts with the new address, or not at all."""
    if spec.replaces and spec.settings.triton_url != OTHER:
        refuse(spec)
    hand_over_if(spec, lambda url: spec.number > 0)


def answer_until(spec: WorkerSpec, stick: Callable[[], None]) -> None:
    """Be ready, and get stuck a moment later; a replacement does not."""

    async def wait() -> None:
        stop, at_once = asyncio.Event(), asyncio.Event()
        with worker_control(spec, stop, at_once):
            report(spec, Ready())
            if not spec.replaces:
                await asyncio.sleep(0.3)
                stick()
            await stop.wait()

    asyncio.run(wait())


def stop_yourself(spec: WorkerSpec) -> None:
    answer_until(spec, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def block_the_event_loop(spec: WorkerSpec) -> None:
    answer_until(spec, lambda: time.sleep(60))


def never_begin(spec: WorkerSpec) -> None:
    if not spec.replaces:
        os.kill(os.getpid(), signal.SIGSTOP)
    answer_until(spec, lambda: None)


class Run:
    """A worker pool in this event loop."""

    def __init__(self, work: Callable[[WorkerSpec], None], count: int = 1, **settings: Any) -> None:
        self.stop, self.at_once, self.started = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._reserved = bind("127.0.0.1", 0, shared=True)
        self.pool = WorkerPool(
            Settings(workers=count, **settings), work, self._reserved, self.stop, self.at_once
        )
        self.task = asyncio.create_task(self.pool.run(self.started.set))

    def close(self) -> None:
        self._reserved.close()


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Run]]:
    # A pool changes where the metrics of its process are kept.
    for name in ("ValueClass", "MmapedDict"):
        monkeypatch.setattr(values, name, getattr(values, name))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    running: list[Run] = []

    def start(work: Callable[[WorkerSpec], None], count: int = 1, **settings: Any) -> Run:
        running.append(Run(work, count, **settings))
        return running[-1]

    yield start
    for each in running:
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)
        each.close()


async def test_a_worker_that_refuses_its_settings_ends_the_start(run: Callable[..., Run]) -> None:
    running = run(refuse, 2)
    with pytest.raises(ConfigurationError, match=r"^The settings are wrong\.$"):
        await asyncio.wait_for(running.task, 20)
    assert not running.started.is_set()


async def test_a_replacement_that_refuses_is_tried_again(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "tritonflare.workers")
    running = run(refuse_when_it_replaces)
    await asyncio.wait_for(running.started.wait(), 30)
    while len(caplog.records) < 3:
        await asyncio.sleep(0.02)
    assert [record.getMessage() for record in caplog.records[:3]] == [
        "worker 0 ended (status 0); restarting it in 0.2 s",
        "worker 0 ended (The settings are wrong.); restarting it in 0.4 s",
        "worker 0 ended (The settings are wrong.); restarting it in 0.8 s",
    ]
    running.stop.set()
    await asyncio.wait_for(running.task, 20)


async def test_pauses_between_failing_starts_have_an_end(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR, "tritonflare.workers")
    monkeypatch.setattr(workers, "_LONGEST_PAUSE_S", 0.3)
    run(end_at_start)
    while len(caplog.records) < 3:
        await asyncio.sleep(0.02)
    assert [record.getMessage()[-5:] for record in caplog.records[:3]] == ["0.2 s", "0.3 s", "0.3 s"]


async def test_a_worker_that_does_not_end_is_killed(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_EXIT_S", 0.2)
    running = run(hang)
    await asyncio.wait_for(running.started.wait(), 30)
    running.stop.set()
    running.at_once.set()
    await asyncio.wait_for(running.task, 20)


async def _replaced(running: Run, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Wait until the second process of worker 0 serves; return the errors that were logged."""
    while caplog.text.count("restarting it in") < 1:
        await asyncio.sleep(0.02)
    await asyncio.sleep(1)
    running.stop.set()
    await asyncio.wait_for(running.task, 20)
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("work", [stop_yourself, block_the_event_loop])
async def test_a_worker_that_is_stuck_is_killed_and_replaced_once(
    run: Callable[..., Run],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[WorkerSpec], None],
) -> None:
    monkeypatch.setattr(worker_process, "BEAT_S", 0.1)
    running = run(work, worker_timeout_s=2)
    await asyncio.wait_for(running.started.wait(), 30)
    assert await asyncio.wait_for(_replaced(running, caplog), 45) == [
        "worker 0 has answered no heartbeat for 2 s; killing it",
        "worker 0 ended (signal 9); restarting it in 0.2 s",
    ]


async def test_a_worker_that_is_stuck_before_it_serves_has_longer(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "BEAT_S", 0.1)
    monkeypatch.setattr(worker_process, "START_S", 3.0)
    running = run(never_begin, worker_timeout_s=0.5)
    logged = await asyncio.wait_for(_replaced(running, caplog), 45)
    assert logged[0] == "worker 0 has answered no heartbeat for 3 s; killing it"


async def test_a_pool_that_was_stopped_itself_kills_no_worker(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended machine, or SIGSTOP for the whole process group: no heartbeat was missed."""
    monkeypatch.setattr(worker_process, "BEAT_S", 0.3)
    running = run(follow, 2, worker_timeout_s=0.6)
    await asyncio.wait_for(running.started.wait(), 30)
    workers_here = [
        child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers_here) == 2
    for _ in range(3):
        for worker in workers_here:
            worker.suspend()
        time.sleep(1)  # this event loop is the pool's
        for worker in workers_here:
            worker.resume()
        await asyncio.sleep(0.5)
    assert [child.is_running() for child in workers_here] == [True, True]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    running.stop.set()
    running.at_once.set()
    await asyncio.wait_for(running.task, 20)


async def test_only_the_pool_ends_workers_without_a_drain(run: Callable[..., Run]) -> None:
    running = run(follow, 2)
    await asyncio.wait_for(running.started.wait(), 30)
    running.stop.set()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(running.task), 0.5)
    running.at_once.set()
    await asyncio.wait_for(running.task, 20)


async def test_when_no_worker_can_hand_over_all_stay_as_they_are(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    running = run(never_hand_over, 2)
    await asyncio.wait_for(running.started.wait(), 30)
    with pytest.raises(BackendUnavailable):
        await asyncio.wait_for(running.pool.hand_over(OTHER), 30)
    await asyncio.sleep(0.3)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    running.stop.set()
    await asyncio.wait_for(running.task, 20)


async def test_when_one_worker_can_hand_over_the_other_is_replaced_before_the_old_server_may_end(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    running = run(hand_over_unless_first, 2)
    await asyncio.wait_for(running.started.wait(), 30)
    await asyncio.wait_for(running.pool.hand_over(OTHER), 30)
    await asyncio.sleep(0.5)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        f"worker 0 failed the handover to {OTHER}; replacing it",
        "worker 0 ended (status 0); restarting it in 0.2 s",
    ]
    running.stop.set()
    await asyncio.wait_for(running.task, 20)

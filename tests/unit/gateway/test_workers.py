"""The supervisor, with workers that misbehave; real processes, no gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import values

from gateway import workers
from gateway.serving import bind
from gateway.settings import ConfigurationError, Settings
from gateway.workers import Post, Supervisor, obeying, say


def refuse(post: Post) -> None:
    say(post, "The settings are wrong.")
    os._exit(2)


def end_at_start(post: Post) -> None:
    os._exit(3)


def hang(post: Post) -> None:
    """Be ready, and deaf to everything."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(post, None)
    time.sleep(60)


def refuse_when_it_replaces(post: Post) -> None:
    if post.replaces:
        refuse(post)
    say(post, None)
    os._exit(0)


def obey(post: Post) -> None:
    async def wait() -> None:
        stop, at_once = asyncio.Event(), asyncio.Event()
        with obeying(post, stop, at_once):
            say(post, None)
            await stop.wait()
            await at_once.wait()

    asyncio.run(wait())


class Run:
    """A supervisor in this event loop."""

    def __init__(self, work: Callable[[Post], None], count: int = 1) -> None:
        self.stop, self.at_once, self.started = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._reserved = bind("127.0.0.1", 0, shared=True)
        supervisor = Supervisor(Settings(workers=count), work, self._reserved, self.stop, self.at_once)
        self.task = asyncio.create_task(supervisor.run(self.started.set))

    def close(self) -> None:
        self._reserved.close()


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Run]]:
    # A supervisor takes the metrics of its process over.
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    running: list[Run] = []

    def start(work: Callable[[Post], None], count: int = 1) -> Run:
        running.append(Run(work, count))
        return running[-1]

    yield start
    for each in running:
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)
        each.close()


async def test_a_worker_that_refuses_its_settings_ends_the_start(run: Callable[..., Run]) -> None:
    running = run(refuse, 2)
    with pytest.raises(ConfigurationError, match=r"^The settings are wrong\.$"):
        await asyncio.wait_for(running.task, 10)
    assert not running.started.is_set()


async def test_a_replacement_that_refuses_is_tried_again(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "tritonflare.workers")
    running = run(refuse_when_it_replaces)
    await asyncio.wait_for(running.started.wait(), 10)
    while len(caplog.records) < 3:
        await asyncio.sleep(0.02)
    assert [record.getMessage() for record in caplog.records[:3]] == [
        "worker 0 ended (status 0); the next starts in 0.2 s",
        "worker 0 ended (The settings are wrong.); the next starts in 0.4 s",
        "worker 0 ended (The settings are wrong.); the next starts in 0.8 s",
    ]
    running.stop.set()
    await asyncio.wait_for(running.task, 10)


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
    await asyncio.wait_for(running.started.wait(), 10)
    running.stop.set()
    running.at_once.set()
    await asyncio.wait_for(running.task, 5)


async def test_only_the_supervisor_can_say_at_once(run: Callable[..., Run]) -> None:
    running = run(obey, 2)
    await asyncio.wait_for(running.started.wait(), 10)
    running.stop.set()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(running.task), 0.5)
    running.at_once.set()
    await asyncio.wait_for(running.task, 5)

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
from gateway.domain.errors import BackendUnavailable
from gateway.serving import bind
from gateway.settings import ConfigurationError, Settings
from gateway.workers import Post, Supervisor, obeying, say

OTHER = "127.0.0.1:9999"


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


def move_if(post: Post, can: Callable[[str], bool]) -> None:
    async def move(url: str) -> None:
        if not can(url):
            raise BackendUnavailable

    async def wait() -> None:
        stop, at_once = asyncio.Event(), asyncio.Event()
        with obeying(post, stop, at_once, move):
            say(post, None)
            await stop.wait()

    asyncio.run(wait())


def move_never(post: Post) -> None:
    move_if(post, lambda url: False)


def move_unless_first(post: Post) -> None:
    """The first cannot, and a replacement starts where the others have gone to, or not at all."""
    if post.replaces and post.settings.triton_url != OTHER:
        refuse(post)
    move_if(post, lambda url: post.number > 0)


class Run:
    """A supervisor in this event loop."""

    def __init__(self, work: Callable[[Post], None], count: int = 1) -> None:
        self.stop, self.at_once, self.started = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._reserved = bind("127.0.0.1", 0, shared=True)
        settings = Settings(workers=count)
        self.supervisor = Supervisor(settings, work, self._reserved, self.stop, self.at_once)
        self.task = asyncio.create_task(self.supervisor.run(self.started.set))

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


async def test_when_no_worker_can_move_all_stay_as_they_are(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    running = run(move_never, 2)
    await asyncio.wait_for(running.started.wait(), 10)
    with pytest.raises(BackendUnavailable):
        await asyncio.wait_for(running.supervisor.move(OTHER), 10)
    await asyncio.sleep(0.3)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    running.stop.set()
    await asyncio.wait_for(running.task, 10)


async def test_when_one_can_move_the_other_is_replaced_before_the_old_server_may_end(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    running = run(move_unless_first, 2)
    await asyncio.wait_for(running.started.wait(), 10)
    await asyncio.wait_for(running.supervisor.move(OTHER), 10)
    await asyncio.sleep(0.5)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "worker 0 could not change over to the other Triton",
        "worker 0 ended (status 0); the next starts in 0.2 s",
    ]
    running.stop.set()
    await asyncio.wait_for(running.task, 10)

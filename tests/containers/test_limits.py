"""Limits of memory and CPU: 1 GB is enough, and the server starts as many threads as its quota has cores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.containers.deployment import Deployment
from tests.support.containers.engine import Engine
from tests.support.containers.one import PUBLISHED, WITH_TOKEN, one_container
from tests.support.containers.processes import Usage, find_process, main_process, usage
from tests.support.load import Book, Target, load, reference
from tests.support.texts import sentences, texts_of_words

LIMIT = "1g"
LIMIT_BYTES = 2**30
SECONDS = 10.0
PER_S = 30.0
TEXTS = [*sentences()[:20], *texts_of_words(8, 600, seed=1), "word " * 10_000]


async def loaded(target: Target, seconds: float, per_s: float, texts: list[str]) -> Book:
    """Send the texts in turn at a fixed rate."""
    async with load(target, await reference(target, texts), per_s) as book:
        await asyncio.sleep(seconds)
    return book


def report(name: str, found: Usage, book: Book) -> None:
    print(
        f"{name}: peak {found.peak_bytes / 2**20:.0f} MiB, now {found.anonymous_bytes / 2**20:.0f}, "
        f"throttled in {found.throttled} of {found.periods} periods for {found.throttled_s:.1f} s, "
        f"{dict(book.statuses())}"
    )


def check_answers(book: Book) -> None:
    """All are right, or on a slow machine some are refused."""
    assert book.wrong() == []
    assert len(book.good()) > 0.5 * len(book.outcomes)


def busy_encoder_threads(engine: Engine, container: str) -> int:
    """Threads of the encoder that run the model: each has used a good part of the CPU time of all."""
    encoder = find_process(engine, container, "python_backend_stub", "encoder")
    times = [thread.user_time for thread in encoder.threads()]
    return sum(time > 0.2 * sum(times) for time in times)


@contextmanager
def limited(deployment: Deployment) -> Iterator[list[str]]:
    """The containers of gateways and Tritons, limited to `LIMIT` until the end of the block."""
    containers = [*deployment.containers("triton"), *deployment.containers("gateway")]
    deployment.engine.docker("update", f"--memory={LIMIT}", f"--memory-swap={LIMIT}", *containers)
    try:
        yield containers
    finally:
        deployment.engine.docker("update", "--memory=64g", "--memory-swap=64g", *containers)


@pytest.mark.long
async def test_a_gigabyte_is_enough_for_triton_and_for_the_gateway(deployment: Deployment) -> None:
    engine, target = deployment.engine, deployment.targets()[0]
    with limited(deployment) as containers:
        before = [usage(main_process(engine, container)) for container in containers]
        book = await loaded(target, SECONDS, PER_S, TEXTS)
        for container, earlier in zip(containers, before, strict=True):
            found = usage(main_process(engine, container))
            report(container, found, book)
            assert found.oom_kills == earlier.oom_kills
            assert not engine.inspect(container)["State"]["OOMKilled"]
            assert found.peak_bytes <= LIMIT_BYTES
    check_answers(book)


@pytest.mark.long
@pytest.mark.parametrize("cpus", [1, 2])
async def test_one_container_keeps_to_a_gigabyte_and_to_its_cores(deployment: Deployment, cpus: int) -> None:
    cores = len(psutil.Process().cpu_affinity() or ())
    engine = deployment.engine
    limits = (f"--cpus={cpus}", f"--memory={LIMIT}", f"--memory-swap={LIMIT}", "--restart=unless-stopped")
    with one_container(engine, *PUBLISHED, *WITH_TOKEN, *limits) as container:
        main = main_process(engine, container.name)
        start = usage(main)
        light = await loaded(container.target(), 4, 20, TEXTS[:20])
        calm = usage(main)
        report(f"{cpus} CPUs, 20 short texts a second", calm, light)
        mixed = await loaded(container.target(), SECONDS, PER_S, TEXTS)
        found = usage(main)
        report(f"{cpus} CPUs, {PER_S:.0f} mixed texts a second", found, mixed)
        # More than the machine can do, so that every thread has work.
        full = await loaded(container.target(), 1, 80, TEXTS[24:28])
        report(f"{cpus} CPUs, 80 long texts a second", usage(main), full)
        assert busy_encoder_threads(engine, container.name) == min(cpus, cores)
        assert found.oom_kills == 0
        assert engine.inspect(container.name)["RestartCount"] == 0
    assert calm.throttled - start.throttled <= 0.25 * (calm.periods - start.periods)
    check_answers(light)
    check_answers(mixed)
    assert full.wrong() == []

"""The image with gateway and Triton in it, as `docker run` starts it: answers, hardening, signals, faults."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Iterator

import numpy
import psutil
import pytest
from tritonclient import grpc

from tests.support.containers.deployment import MODEL, Deployment
from tests.support.containers.engine import Engine
from tests.support.containers.one import (
    HARDENED,
    PUBLISHED,
    TOKEN,
    WITH_TOKEN,
    OneContainer,
    one_container,
)
from tests.support.containers.processes import find_process, kill, main_process, zombies
from tests.support.load import NO_ANSWER, load, reference
from tests.support.servers import wait_until

TEXTS = ["This film is good.", "This film is bad and long. " * 40]


@pytest.fixture(scope="module")
def image(deployment: Deployment) -> Engine:
    """The engine, after the deployment has built the image."""
    return deployment.engine


@pytest.fixture(scope="module")
def container(image: Engine) -> Iterator[OneContainer]:
    with one_container(image, *PUBLISHED, *WITH_TOKEN) as found:
        yield found


def classify(container: OneContainer, token: str) -> list[dict[str, object]]:
    """Run the documented curl."""
    url = f"{container.url}/client/v4/accounts/me/ai/run/{MODEL}"
    command = ["curl", "--silent", "--fail", url, "-H", f"Authorization: Bearer {token}"]
    done = subprocess.run([*command, "-d", '{"text":"What a lovely day"}'], capture_output=True, check=True)
    return list(json.loads(done.stdout)["result"])


def check_answer(container: OneContainer, token: str = "tok") -> None:
    result = classify(container, token)
    assert [entry["label"] for entry in result] == ["NEGATIVE", "POSITIVE"]
    assert float(str(result[1]["score"])) > 0.9


def test_the_documented_command_is_answered(container: OneContainer) -> None:
    check_answer(container)


def test_grpc_is_answered_where_its_port_is_set(image: Engine) -> None:
    options = ("--publish", "127.0.0.1:0:8001", "--env", "GATEWAY_GRPC_PORT=8001")
    with one_container(image, *HARDENED, *options, *WITH_TOKEN) as container:
        tensor = grpc.InferInput("TEXT", [1], "BYTES").set_data_from_numpy(numpy.array([b"A lovely day"]))
        with grpc.InferenceServerClient(image.docker("port", container.name, "8001")) as client:
            answer = client.infer(MODEL, [tensor], headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.as_numpy("label").tolist() == [[b"POSITIVE"]]


def test_it_writes_below_tmp_only(container: OneContainer) -> None:
    changed = {line.split()[1] for line in container.engine.docker("diff", container.name).splitlines()}
    assert {path for path in changed if path != "/tmp" and not path.startswith("/tmp/")} == set()


def test_any_user_runs_it_without_rights_and_the_token_is_printed_once(image: Engine) -> None:
    volume = image.docker("volume", "create")
    try:
        options = (*HARDENED, *PUBLISHED, "--volume", f"{volume}:/data")
        with one_container(image, *options) as first:
            (token,) = re.findall(r"^export TOKEN=(\S+)$", first.log, re.MULTILINE)
            check_answer(first, token)
            assert image.docker("diff", first.name) == ""
        with one_container(image, *options) as second:
            assert "export TOKEN=" not in second.log
            check_answer(second, token)
    finally:
        image.docker("volume", "rm", volume)


@pytest.mark.long
def test_health_follows_the_gateway(container: OneContainer) -> None:
    assert wait_until(lambda: container.health == "healthy", 30)
    gateway = find_process(container.engine, container.name, "bin/tritonflare serve")
    gateway.suspend()
    began = time.monotonic()
    try:
        # Three failed checks of 5 s, 5 s apart.
        assert wait_until(lambda: container.health == "unhealthy", 45)
    finally:
        gateway.resume()
    print(f"unhealthy after {time.monotonic() - began:.0f} s")
    assert wait_until(lambda: container.health == "healthy", 30)


async def test_a_killed_triton_is_restarted_and_reaped(container: OneContainer) -> None:
    target = container.target()
    answers = await reference(target, TEXTS)
    async with load(target, answers, 20) as book:
        await asyncio.sleep(1)
        kill(find_process(container.engine, container.name, "bin/tritonserver"))
        died = book.now_s()
        await asyncio.to_thread(wait_until, lambda: book.good_again_s(died + 0.5) < float("inf"), 40)
    print(f"right answers {book.good_again_s(died + 0.5) - died:.1f} s after the kill, {book.statuses()}")
    assert set(book.statuses()) <= {200, 503}
    assert book.wrong() == []
    assert await asyncio.to_thread(wait_until, lambda: zombies(container.engine, container.name) == [], 10)
    check_answer(container)


async def stop_under_load(container: OneContainer, stop: list[str]) -> None:
    """Run a command of the engine while long texts are sent; what had been sent before must be answered."""
    target = container.target()
    async with load(target, await reference(target, TEXTS[1:]), 20) as book:
        await asyncio.sleep(1)
        began, asked = time.monotonic(), book.now_s()
        await asyncio.to_thread(container.engine.docker, *stop)
        await asyncio.to_thread(container.engine.docker, "wait", container.name)
    print(f"{stop[:-1]}: ended after {time.monotonic() - began:.1f} s, {dict(book.statuses())}")
    assert [sent for sent in book.outcomes if sent.at_s < asked and sent.status != 200] == []
    assert {sent.status for sent in book.wrong()} <= {NO_ANSWER}


@pytest.mark.parametrize("stop", [["stop"], pytest.param(["kill", "--signal=INT"], marks=pytest.mark.long)])
async def test_a_signal_ends_it_in_order(image: Engine, stop: list[str]) -> None:
    # More than Docker's own 10 s: a server with a backlog answers for as long, and then Triton ends.
    with one_container(image, *PUBLISHED, *WITH_TOKEN, "--stop-timeout=30") as container:
        await stop_under_load(container, [*stop, container.name])
        assert image.inspect(container.name)["State"]["ExitCode"] == 0, container.log


def test_the_engine_restarts_it_when_its_gateway_is_killed(image: Engine) -> None:
    with one_container(image, *PUBLISHED, *WITH_TOKEN, "--restart", "unless-stopped") as container:
        init = main_process(image, container.name)
        below = init.children(recursive=True)
        began = time.monotonic()
        kill(find_process(image, container.name, "bin/tritonflare serve"))
        container.wait_until_ready(2)
        print(f"ready again {time.monotonic() - began:.1f} s after the gateway was killed")
        _, alive = psutil.wait_procs(below, timeout=5)
        assert alive == []
        check_answer(container)

"""Stopping and starting again, and a model that is exported while Triton runs."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.containers.deployment import ACCOUNT, MODEL, Deployment
from tests.support.load import load, reference
from tests.support.servers import wait_until
from tests.support.small_checkpoints import write_checkpoint

TEXTS = ["This pizza is great!", "What a bore.", "It was neither good nor bad, I think."]
MOOD = "@cf/acme/mood"
EXPORT = ["--target=cpu", "--quick", "--repository=/models/repository", "--artefacts=/models/artefacts"]


def classify(deployment: Deployment, model: str, text: str) -> list[dict[str, Any]]:
    url = f"{deployment.gateway_url()}/client/v4/accounts/{ACCOUNT}/ai/run/{model}"
    headers = {"authorization": f"Bearer {deployment.token}"}
    request = urllib.request.Request(url, json.dumps({"text": text}).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return list(json.load(response)["result"])


def repository(deployment: Deployment) -> str:
    """All files that Triton serves, with sizes, times and inodes: a publication makes others."""
    command = ["find", "/models/repository", "-type", "f", "-printf", "%p %s %T@ %i\\n"]
    found = deployment.engine.docker("exec", deployment.containers("triton")[0], *command)
    return "\n".join(sorted(found.splitlines()))


@dataclass
class Stop:
    seconds: float
    grace_s: float
    status: int


@dataclass
class Restart:
    """What was before `docker stop`, `down` and `up`, and what they did."""

    answers: list[list[dict[str, Any]]]
    files: str
    stops: dict[str, Stop]


def stop(deployment: Deployment, container: str) -> Stop:
    grace_s = deployment.inspect(container)["Config"].get("StopTimeout") or 10
    began = time.monotonic()
    deployment.engine.docker("stop", container)
    seconds = time.monotonic() - began
    found = Stop(seconds, grace_s, deployment.inspect(container)["State"]["ExitCode"])
    print(f"stopped {container}: {found}")
    return found


@pytest.fixture(scope="module")
def restart(deployment: Deployment) -> Restart:
    answers = [classify(deployment, MODEL, text) for text in TEXTS]
    files = repository(deployment)
    stops = {
        service: stop(deployment, deployment.containers(service)[0]) for service in ("gateway", "triton")
    }
    deployment.compose("down")
    print(f"warm up: {deployment.up():.0f} s")
    return Restart(answers, files, stops)


@pytest.mark.parametrize("service", ["gateway", "triton"])
def test_servers_stop_within_their_grace_period(restart: Restart, service: str) -> None:
    found = restart.stops[service]
    assert found.status == 0
    assert found.seconds < found.grace_s / 2


def test_an_up_after_a_down_exports_nothing_and_gets_the_same_answers(
    deployment: Deployment, restart: Restart
) -> None:
    (export,) = deployment.containers("export")
    log = deployment.engine.run("logs", export)
    assert (log.stdout + log.stderr).startswith("unchanged: ")
    assert repository(deployment) == restart.files
    assert [classify(deployment, MODEL, text) for text in TEXTS] == restart.answers


def test_an_export_that_is_stopped_ends_at_once_and_leaves_the_repository(deployment: Deployment) -> None:
    before = repository(deployment)
    arguments = ["run", "--detach", "export", "export", "checkpoints/minilm-sst2", *EXPORT]
    name = deployment.compose(*arguments).split()[-1]
    try:
        # Past the imports.
        assert wait_until(lambda: "writing fp32" in deployment.engine.run("logs", name).stderr, 60)
        found = stop(deployment, name)
        # 143: it ended by SIGTERM.
        assert (found.status, found.seconds < 5) == (143, True)
        assert repository(deployment) == before
    finally:
        deployment.engine.docker("rm", "--force", name)


@pytest.mark.long
def test_a_new_model_is_served_after_a_restart_of_one_triton_after_the_other(
    fleet: Deployment,
) -> None:
    folder = write_checkpoint(fleet.folder / "checkpoints/mood", labels=3)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)  # As docs/docker.md asks: uid 1000 reads it.
    target, *_ = fleet.targets()

    async def restarts() -> list[Any]:
        answers = await reference(target, TEXTS)
        async with load(target, answers, 5) as book:
            arguments = ["export", "checkpoints/mood", f"--name={MOOD}", "--precision=fp32", *EXPORT]
            await asyncio.to_thread(fleet.compose, "run", "--rm", "export", *arguments)
            for triton in fleet.containers("triton"):
                await asyncio.to_thread(restart_triton, fleet, triton)
        print(f"{len(book.outcomes)} requests, statuses {book.statuses()}")
        return book.lost()

    assert asyncio.run(restarts()) == []
    labels = [entry["label"] for entry in classify(fleet, MOOD, TEXTS[0])]
    assert sorted(labels) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def restart_triton(deployment: Deployment, container: str) -> None:
    """As documented: restart, and wait until it is healthy."""
    began = time.monotonic()
    deployment.engine.docker("restart", container)
    assert wait_until(lambda: deployment.health(container) == "healthy", 120)
    print(f"restarted {container}: {time.monotonic() - began:.0f} s")

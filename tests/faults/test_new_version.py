"""A new version is published under load."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from embedded.errors import EmbeddedError
from embedded.repository import check_repository
from export.repository.inventory import read_inventory
from loadtest.checks import Scores
from tests.faults.conftest import MODEL, Served, serving
from tests.support.bundled import bundled_repository
from tests.support.layouts import publish_layout
from tests.support.load import Book, agrees, load, reference
from tests.support.releases import publish_damaged_version, publish_second_version
from tests.support.servers import TOKEN, finished, wait_until

pytestmark = pytest.mark.needs_triton

SERVED = "the new version is served"
REFUSED = "the new version cannot be served, the old one is still served"
# A Triton that starts beside one that serves, and whatever else runs here, may take all of the machine for
# seconds. Slow is not lost: with room to wait, every refusal is the change's.
PATIENT = {
    "GATEWAY_REQUEST_TIMEOUT_S": "60",
    "GATEWAY_MAX_QUEUE_S": "50",
    "GATEWAY_MAX_REQUESTS_IN_FLIGHT": "10000",
}


@pytest.fixture(scope="module")
def second_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second version, where nothing is served from."""
    repository = Path(shutil.copytree(bundled_repository(), tmp_path_factory.mktemp("second") / "models"))
    publish_second_version(repository)
    return repository


@pytest.fixture(scope="module")
def second(answers: dict[str, Scores], second_repository: Path) -> dict[str, Scores]:
    """What the second version answers."""
    with serving(second_repository) as served:
        found = asyncio.run(reference(served.target, answers))
    assert not any(agrees(found[text], answers[text]) for text in answers)
    return found


async def changing(
    served: Served,
    first: dict[str, Scores],
    second: dict[str, Scores],
    per_s: float,
    publish: Callable[[], object],
    *,
    tell: bool,
) -> Book:
    """Publish the second version under load and go on until it has been served for a while."""
    async with load(served.target, first, per_s, second) as book:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(publish)
        if tell:
            await asyncio.sleep(0.5)
            served.program.process.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(wait_until, lambda: SERVED in served.program.output, 60)
        await asyncio.sleep(0.5)
    print(dict(book.statuses()), f"{max(outcome.latency_s for outcome in book.outcomes):.2f} s at most")
    return book


def answered(served: Served) -> bool:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = served.target.url + served.target.path
    return httpx.post(url, headers=headers, json={"text": "Well?"}, timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("workers", "before", "after"),
    [
        ("1", "steps", "steps"),
        ("2", "steps", "steps"),
        ("1", "steps", "joined"),
        ("2", "joined", "steps"),
    ],
)
def test_a_new_version_fails_no_request(
    repository: Path,
    second_repository: Path,
    answers: dict[str, Scores],
    second: dict[str, Scores],
    half: float,
    workers: str,
    before: str,
    after: str,
) -> None:
    watch = workers == "1"
    options = ["--workers", workers, *(["--watch"] if watch else [])]
    assert publish_layout(repository, MODEL, repository, before).layout == before
    publish = partial(publish_layout, second_repository, MODEL, repository, after)
    with serving(repository, *options, **PATIENT) as served:
        old = served.triton()
        book = asyncio.run(changing(served, answers, second, half, publish, tell=not watch))
        assert book.wrong() == []
        assert set(book.statuses()) == {200}
        assert served.restarts() == {}
        assert not old.is_running()
        found = asyncio.run(reference(served.target, answers))
        assert all(agrees(found[text], second[text]) for text in answers)
        (published,) = read_inventory(repository)
        assert published.layout == after


def test_a_crash_brings_back_what_was_served_and_not_what_is_published_meanwhile(
    repository: Path, answers: dict[str, Scores]
) -> None:
    with serving(repository) as served:
        publish_second_version(repository)
        served.triton().kill()
        assert wait_until(lambda: served.restarts() == {"ended": 1}, 10)
        assert wait_until(lambda: answered(served), 30)
        found = asyncio.run(reference(served.target, answers))
        assert all(agrees(found[text], answers[text]) for text in answers)
        assert "taking what is published now" not in served.program.output


def test_a_damaged_version_is_not_served_and_the_served_one_survives_faults(
    repository: Path, answers: dict[str, Scores]
) -> None:
    with serving(repository, "--watch") as served:
        publish_damaged_version(repository)
        assert wait_until(lambda: REFUSED in served.program.output, 10)
        assert "model.onnx is not the file that was published" in served.program.output
        served.triton().kill()
        assert wait_until(lambda: served.restarts() == {"ended": 1}, 10)
        assert wait_until(lambda: answered(served), 10)
        found = asyncio.run(reference(served.target, answers))
        assert all(agrees(found[text], answers[text]) for text in answers)
    with pytest.raises(EmbeddedError):
        check_repository(repository)
    status, output = finished(
        "serve", "--port", "0", "--repository", str(repository), GATEWAY_API_TOKENS="*:x"
    )
    assert status == 2
    assert "is not the file that was published" in output

"""Gateways and Triton are killed again and again while batches are queued; none is lost or answered twice.

``python -m tests.faults.queued_batches file|redis MINUTES`` runs it for longer than the test does. It prints
a JSON object: batches, kills, polls, and what went wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.deploy.compose import SECRET
from tests.support.deploy.compose_triton import ServingImage, free_port
from tests.support.redis import running_redis
from tests.support.servers import ACCOUNT, TOKEN, listens, wait_until
from tests.support.texts import sentences

MODEL = "@cf/huggingface/distilbert-sst-2-int8"
PATH = f"/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}?queueRequest=true"
BATCH_TEXTS = 30
BATCHES_PER_MINUTE = 100
DISTINCT_TEXTS = 24
TOLERANCE = 1e-4
"""Between the score of a text alone and in a batch."""
PAUSE_S = (0.5, 2.0)
"""Between two kills."""
_SUBMITTERS = 4


class KillableGateway:
    """``tritonflare gateway`` on a port of its own, with all of its processes in one group."""

    def __init__(self, folder: Path, tritons: Sequence[ServingImage], **settings: str) -> None:
        self.port = free_port()
        self._log = folder / f"gateway-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        addresses = ",".join(f"127.0.0.1:{triton.grpc}" for triton in tritons)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
        self._environment = inherited | {
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_TRITON_URL": f"ipv4:{addresses}",
            "GATEWAY_TRITON_METADATA_KEY": f"tritonflare={SECRET}",
            "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
            "GATEWAY_MAX_QUEUED_BATCHES": "1000000",
            "GATEWAY_ACCESS_LOG_SHARE": "0",
            **settings,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "tritonflare", "gateway"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """Kill all of its processes at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def kill_worker(self) -> bool:
        """Kill one worker; return whether there are several."""
        if self._process is None:
            return False
        children = psutil.Process(self._process.pid).children()
        workers = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
        if len(workers) < 2:
            return False
        random.choice(workers).kill()
        return True

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@dataclass
class Stage:
    """What can be killed."""

    gateways: list[KillableGateway]
    tritons: list[ServingImage]
    kills: Counter[str] = field(default_factory=Counter)

    async def kill_something(self) -> None:
        """Kill a gateway, one of its workers, or a Triton; start it again a moment later."""
        number = random.randrange(2 * len(self.gateways) + len(self.tritons))
        if number < len(self.tritons):
            triton = self.tritons[number]
            await asyncio.to_thread(triton.kill)
            await asyncio.sleep(random.uniform(0, 0.5))
            await asyncio.to_thread(triton.start, wait=False)
            self.kills["triton"] += 1
            return
        gateway = random.choice(self.gateways)
        if random.random() < 0.5 and gateway.kill_worker():
            self.kills["worker"] += 1
            return
        await asyncio.to_thread(gateway.kill)
        await asyncio.sleep(random.uniform(0, 0.5))
        gateway.start()
        self.kills["gateway"] += 1


@dataclass
class Ledger:
    """What was accepted and what was answered."""

    right: dict[str, list[float]]
    """The scores of each text, asked alone."""
    accepted: dict[str, list[str]] = field(default_factory=dict)
    """The texts of each batch, by its id."""
    results: dict[str, bytes] = field(default_factory=dict)
    polls: int = 0
    problems: list[str] = field(default_factory=list)

    def see(self, request_id: str, body: bytes) -> None:
        """Note a result; it must be the same as before, and right."""
        known = self.results.setdefault(request_id, body)
        if known != body:
            self.problems.append(f"{request_id} has two results")
            return
        responses = json.loads(body)["result"]["responses"]
        texts = self.accepted[request_id]
        if [entry["external_reference"] for entry in responses] != [str(n) for n in range(len(texts))]:
            self.problems.append(f"{request_id} has other inputs")
        for entry, text in zip(responses, texts, strict=True):
            if not entry["success"]:
                self.problems.append(f"{request_id}: {entry['errors']}")
            elif any(
                abs(score["score"] - right) > TOLERANCE
                for score, right in zip(entry["result"], self.right[text], strict=True)
            ):
                self.problems.append(f"{request_id} has a wrong score")


class Clients:
    """Submit and poll at any gateway, again and again, as clients of an unreliable server do."""

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        self._stage = stage
        self.ledger = ledger
        self._http = httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=15)

    async def close(self) -> None:
        await self._http.aclose()

    async def post(self, body: dict[str, Any]) -> httpx.Response | None:
        """Return the answer of any gateway; None if there is none, or one that says to try again."""
        try:
            url = random.choice(self._stage.gateways).url
            answer = await self._http.post(url + PATH, json=body)
        except httpx.TransportError:
            return None
        return None if answer.status_code in (429, 503) else answer

    async def submit(self, texts: list[str], until: float) -> None:
        body = {"requests": [{"text": text, "external_reference": str(n)} for n, text in enumerate(texts)]}
        while time.monotonic() < until:
            answer = await self.post(body)
            if answer is not None and answer.status_code == 200:
                self.ledger.accepted[answer.json()["result"]["request_id"]] = texts
                return
            if answer is not None:
                self.ledger.problems.append(f"a batch got {answer.status_code}")
                return
            await asyncio.sleep(0.1)

    async def submit_many(self, count: int, within_s: float, until: float) -> None:
        """Submit so many batches, spread over ``within_s`` seconds, or as many as there is time for."""
        left = iter(range(count))

        async def one_after_the_other() -> None:
            for _ in left:
                if time.monotonic() >= until:
                    return
                await self.submit(random.choices(list(self.ledger.right), k=BATCH_TEXTS), until)
                await asyncio.sleep(within_s * _SUBMITTERS / count)

        await asyncio.gather(*(one_after_the_other() for _ in range(_SUBMITTERS)))

    async def poll(self, request_id: str) -> None:
        answer = await self.post({"request_id": request_id})
        if answer is None:
            return
        self.ledger.polls += 1
        if answer.status_code != 200:
            self.ledger.problems.append(f"a poll got {answer.status_code}: {answer.text}")
        elif "responses" in answer.json()["result"]:
            self.ledger.see(request_id, answer.content)

    async def poll_all(self, until: float) -> None:
        """Poll until every batch has a result, then once more at each gateway."""
        while (missing := self.ledger.accepted.keys() - self.ledger.results) and time.monotonic() < until:
            for request_id in random.sample(sorted(missing), min(20, len(missing))):
                await self.poll(request_id)
            await asyncio.sleep(0.2)
        for request_id in self.ledger.results:
            for gateway in self._stage.gateways:
                answer = await self._http.post(gateway.url + PATH, json={"request_id": request_id})
                self.ledger.see(request_id, answer.content)


async def run(stage: Stage, batches: int, kill_s: float, finish_s: float) -> Ledger:
    """Submit and poll while everything is killed for ``kill_s`` seconds; then wait for the last results."""
    ledger = Ledger(await _right_answers(stage))
    clients = Clients(stage, ledger)
    until = time.monotonic() + kill_s
    submitting = asyncio.create_task(clients.submit_many(batches, 0.8 * kill_s, until))
    polling = asyncio.create_task(_keep_polling(clients, until))
    try:
        while time.monotonic() < until:
            await asyncio.sleep(random.uniform(*PAUSE_S))
            await stage.kill_something()
        await asyncio.gather(submitting, polling)
        for gateway in stage.gateways:
            listening = await asyncio.to_thread(wait_until, lambda: listens(gateway.port), 30)  # noqa: B023
            assert listening, gateway.log()
        await clients.submit_many(batches - len(ledger.accepted), 0, time.monotonic() + finish_s)
        await clients.poll_all(time.monotonic() + finish_s)
    finally:
        submitting.cancel()
        polling.cancel()
        await asyncio.gather(submitting, polling, return_exceptions=True)
        await clients.close()
    return ledger


async def _keep_polling(clients: Clients, until: float) -> None:
    while time.monotonic() < until:
        known = list(clients.ledger.accepted)
        for request_id in random.sample(known, min(3, len(known))):
            await clients.poll(request_id)
        await asyncio.sleep(0.1)


async def _right_answers(stage: Stage) -> dict[str, list[float]]:
    right: dict[str, list[float]] = {}
    url = stage.gateways[0].url + PATH.partition("?")[0]
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=15) as client:
        for text in sentences()[:DISTINCT_TEXTS]:
            answer = await client.post(url, json={"text": text})
            right[text] = [entry["score"] for entry in answer.json()["result"]]
    return right


@contextmanager
def staged(kind: str, folder: Path) -> Iterator[Stage]:
    """One gateway with two workers and a file, or two gateways with Redis; before one Triton."""
    if kind == "redis":
        with running_redis(folder) as redis, _started(folder, 2, GATEWAY_BATCH_REDIS_URL=redis.url) as stage:
            yield stage
    else:
        settings = {"GATEWAY_BATCH_FOLDER": str(folder / "batches"), "GATEWAY_WORKERS": "2"}
        with _started(folder, 1, **settings) as stage:
            yield stage


@contextmanager
def _started(folder: Path, gateways: int, **settings: str) -> Iterator[Stage]:
    with ServingImage() as triton:
        stage = Stage([KillableGateway(folder, [triton], **settings) for _ in range(gateways)], [triton])
        try:
            for gateway in stage.gateways:
                gateway.start()
            for gateway in stage.gateways:
                assert wait_until(lambda: "serving on" in gateway.log(), 60), gateway.log()  # noqa: B023
            yield stage
        finally:
            for gateway in stage.gateways:
                gateway.kill()


def report(stage: Stage, ledger: Ledger) -> dict[str, Any]:
    """What can be said at the end."""
    return {
        "accepted": len(ledger.accepted),
        "finished": len(ledger.results),
        "kills": dict(stage.kills),
        "polls": ledger.polls,
        "problems": ledger.problems[:20],
    }


def main() -> None:
    """Run for as many minutes as the second argument says."""
    kind, minutes = sys.argv[1], float(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder, staged(kind, Path(folder)) as stage:
        ledger = asyncio.run(run(stage, round(BATCHES_PER_MINUTE * minutes), 60 * minutes, 300))
        sys.stdout.write(json.dumps(report(stage, ledger), indent=1) + "\n")


if __name__ == "__main__":
    main()

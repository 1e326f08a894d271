"""What a queued batch costs live requests, and how fast it is when there are none.

``python -m tests.faults.live_beside_batches ROUNDS SECONDS SHARE`` prints a JSON object. Each round has
SECONDS of live requests alone and SECONDS of the same beside a batch that is never finished; they leave at a
fixed rate, SHARE of what one client after the other gets. Latencies are in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from statistics import quantiles
from typing import Any

import httpx

from loadtest.closed_loop import over_http
from tests.faults.conftest import PATH, Served, serving
from tests.support.bundled import bundled_repository
from tests.support.load import load, reference
from tests.support.servers import TOKEN
from tests.support.texts import sentences

BATCH_TEXTS = 10_000
CALLERS = 32


def submit(served: Served, count: int) -> str:
    """Queue a batch of sentences; return its id."""
    known = sentences()
    body = {"requests": [{"text": known[number % len(known)]} for number in range(count)]}
    return str(_post(served, body)["request_id"])


def _post(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{served.program.url}{PATH}?queueRequest=true"
    answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    result: dict[str, Any] = answer.raise_for_status().json()["result"]
    return result


def seconds_until_finished(served: Served, request_id: str) -> float:
    """Wait for the result of a batch."""
    began = time.monotonic()
    while "responses" not in _post(served, {"request_id": request_id}):
        time.sleep(0.05)
    return time.monotonic() - began


def tokens_read(served: Served) -> float:
    """Tokens that the model has read so far."""
    lines = served.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tritonflare_tokens_total{"))


async def live(served: Served, per_s: float, seconds: float) -> list[float]:
    """Latencies of live requests."""
    answers = await reference(served.target, sentences()[:64])
    async with load(served.target, answers, per_s) as book:
        await asyncio.sleep(seconds)
    assert book.lost() == []
    return [outcome.latency_s for outcome in book.outcomes]


def percentiles(latencies: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    cuts = quantiles(latencies, n=100)
    return {"requests": len(latencies), "p50": round(1000 * cuts[49], 2), "p99": round(1000 * cuts[98], 2)}


def measure(rounds: int, seconds: float, share: float) -> dict[str, Any]:
    """Measure as the module describes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(bundled_repository(), GATEWAY_BATCH_FOLDER=folder, GATEWAY_REQUEST_TIMEOUT_S="10") as served,
    ):
        texts = sentences()[:64]
        most = over_http(served.target, texts, CALLERS, 4)["rate"]
        idle_s = seconds_until_finished(served, submit(served, 3000))
        per_s = share * most
        alone: list[float] = []
        beside: list[float] = []
        done = 0.0
        for _ in range(rounds):
            alone += asyncio.run(live(served, per_s, seconds))
            submit(served, BATCH_TEXTS)
            time.sleep(0.5)
            before = tokens_read(served)
            beside += asyncio.run(live(served, per_s, seconds))
            done += tokens_read(served) - before
            _drop_batches(folder)
            time.sleep(1.5)
        return {
            "live_texts_per_s_closed_loop": round(most),
            "batch_texts_per_s_idle": round(3000 / idle_s),
            "live_per_s": round(per_s),
            "alone": percentiles(alone),
            "beside": percentiles(beside),
            "ratio": {
                name: round(percentiles(beside)[name] / percentiles(alone)[name], 2)
                for name in ("p50", "p99")
            },
            "tokens_beside": round(done),
        }


def _drop_batches(folder: str) -> None:
    """Remove what is left of the batch, so that the next round begins without one."""
    import sqlite3

    from gateway.batches.sqlite_file import FILE

    db = sqlite3.connect(f"{folder}/{FILE}", timeout=10)
    with db:
        db.execute("DELETE FROM chunks")
        db.execute("DELETE FROM batches")
    db.close()


def main() -> None:
    """Print the measurement."""
    rounds, seconds, share = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    sys.stdout.write(json.dumps(measure(rounds, seconds, share), indent=1) + "\n")


if __name__ == "__main__":
    main()

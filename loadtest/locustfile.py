"""A locust user who asks for one sentence after the other and checks every answer.

    make loadtest HOST=http://127.0.0.1:8787 TOKEN=… [ACCOUNT=…] [MODEL=@cf/…]

Any answer that is not a good one of the documented shape counts as a failure, and locust then
exits 1. Runs in an environment of its own, so it imports nothing of the server.
"""

from __future__ import annotations

import csv
import math
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task

SENTENCES = Path(__file__).parents[1] / "checkpoints" / "minilm-sst2" / "heldout.tsv"
ACCOUNT = os.environ.get("ACCOUNT") or "0123456789abcdef0123456789abcdef"
MODEL = os.environ.get("MODEL") or "@cf/huggingface/distilbert-sst-2-int8"


@events.init.add_listener
def _need_a_token(**_: Any) -> None:
    if not os.environ.get("TOKEN"):
        raise SystemExit("Set TOKEN to an API token of the server: make loadtest TOKEN=…")


def sentences() -> list[str]:
    """The held-out sentences, whose lengths are those of real reviews, news and tweets."""
    with SENTENCES.open(newline="", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file, delimiter="\t")]


class SingleText(FastHttpUser):
    """Closed loop: the next request leaves when the answer is there."""

    wait_time = constant(0)
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
    texts = sentences()

    @task
    def classify(self) -> None:
        """One sentence, one answer, checked."""
        headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
        text = random.choice(self.texts)  # noqa: S311 (a load test needs no secrecy)
        with self.client.post(
            self.path, json={"text": text}, headers=headers, name="run", catch_response=True
        ) as response:
            complaint = _complaint(response)
            if complaint:
                response.failure(complaint)


def _complaint(response: Any) -> str | None:
    if response.status_code != 200:
        return f"status {response.status_code}"
    body = response.json()
    scores = [entry["score"] for entry in body["result"]]
    if not body["success"] or len(scores) < 2:
        return "not a classification"
    if not math.isclose(sum(scores), 1, abs_tol=1e-6):
        return f"scores sum to {sum(scores)}"
    return None

"""mosec with a process a core, or with as many as ``PEER`` says.

``PEER`` may set ``batch``, the most requests that a process is given at once, and ``wait_ms``, how long the
first of them waits for others. Without, a process is given one request.
"""

from __future__ import annotations

import os
from typing import Any

from classifier import Answer, Classifier
from mosec import Server, Worker
from onnx_model import peer_settings
from reranker import Reranker, Scores


class One(Worker):
    """A text at a time."""

    def __init__(self) -> None:
        """Load the model in this process."""
        self._classifier = Classifier()

    def forward(self, data: dict[str, str]) -> Answer:
        """Return the scores of a text."""
        return self._classifier.classify([data["text"]])[0]


class Batch(Worker):
    """All texts that wait, up to ``batch``."""

    def __init__(self) -> None:
        """Load the model in this process."""
        self._classifier = Classifier()

    def forward(self, data: list[dict[str, str]]) -> list[Answer]:
        """Return the scores of each text, in order."""
        return self._classifier.classify([each["text"] for each in data])


class OneQuestion(Worker):
    """A query with its contexts at a time."""

    def __init__(self) -> None:
        """Load the model in this process."""
        self._reranker = Reranker()

    def forward(self, data: dict[str, Any]) -> Scores:
        """Return the scores of the contexts."""
        return self._reranker.score(data["query"], data["contexts"])


class Questions(Worker):
    """All queries with their contexts that wait, up to ``batch``."""

    def __init__(self) -> None:
        """Load the model in this process."""
        self._reranker = Reranker()

    def forward(self, data: list[dict[str, Any]]) -> list[Scores]:
        """Return the scores of each request, in order."""
        return self._reranker.score_all([(each["query"], each["contexts"]) for each in data])


if __name__ == "__main__":
    server = Server()
    peer = peer_settings()
    classifies = len(peer["labels"]) > 1
    processes = peer.get("processes", len(os.sched_getaffinity(0)))
    if "batch" in peer:
        worker = Batch if classifies else Questions
        server.append_worker(worker, processes, max_batch_size=peer["batch"], max_wait_time=peer["wait_ms"])
    else:
        server.append_worker(One if classifies else OneQuestion, processes)
    server.run()

"""mosec with a process a core.

``PEER`` may set ``batch``, the most texts that a process is given at once, and ``wait_ms``, how long the
first of them waits for others. Without, a process is given one text.
"""

from __future__ import annotations

import os

from classifier import Answer, Classifier, given
from mosec import Server, Worker


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


if __name__ == "__main__":
    server = Server()
    cores = len(os.sched_getaffinity(0))
    peer = given()
    if "batch" in peer:
        server.append_worker(Batch, cores, max_batch_size=peer["batch"], max_wait_time=peer["wait_ms"])
    else:
        server.append_worker(One, cores)
    server.run()

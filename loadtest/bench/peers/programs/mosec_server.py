"""mosec with a process a core; ``PEER_BATCH`` texts at most in a batch."""

from __future__ import annotations

import os

from classifier import Answer, Classifier
from mosec import Server, Worker

BATCH = int(os.environ["PEER_BATCH"])
WAIT_MS = int(os.environ.get("PEER_WAIT_MS", "1"))


class One(Worker):
    """A text at a time."""

    def __init__(self) -> None:
        """Load the model in this process."""
        self._classifier = Classifier()

    def forward(self, data: dict[str, str]) -> Answer:
        """Return the scores of a text."""
        return self._classifier.classify([data["text"]])[0]


class Batch(One):
    """As many texts as wait, up to BATCH."""

    def forward(self, data: list[dict[str, str]]) -> list[Answer]:
        """Return the scores of each text, in order."""
        return self._classifier.classify([each["text"] for each in data])


if __name__ == "__main__":
    server = Server()
    cores = len(os.sched_getaffinity(0))
    if BATCH == 1:
        server.append_worker(One, num=cores)
    else:
        server.append_worker(Batch, num=cores, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()

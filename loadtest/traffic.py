"""What is asked: single texts, several in one request, long ones, invalid ones, in any mix.

Nothing here knows locust or a protocol. A PlannedRequest is made once and sent many times, so that the load
generator spends its time on sending.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SENTENCES = Path(__file__).parents[1] / "checkpoints" / "minilm-sst2" / "heldout.tsv"
KINDS = ("single", "several", "long", "invalid")
MIXED: Mapping[str, float] = {"single": 85, "several": 5, "long": 2, "invalid": 8}
SEVERAL_TEXTS = 8
LONG_TEXTS = 16
_LONG_WORDS = 450  # more than the 512 tokens that the model reads, once punctuation counts
_BODIES = 256  # different bodies of several texts
_BASE = "/client/v4"


@dataclass(frozen=True)
class Refusal:
    """The answer that an invalid request must get."""

    status: int | str
    """Of HTTP, or the name of a gRPC status."""
    messages: Mapping[int, str]
    """Codes that it may have, each with words that its message must contain; gRPC carries no codes."""


@dataclass(frozen=True)
class PlannedRequest:
    """One request with what its answer must be."""

    kind: str
    url: str
    """Where to send it: a URL, or the path of a gRPC method."""
    body: bytes
    texts: tuple[str, ...] = ()
    refusal: Refusal | None = None


class RequestMaker(Protocol):
    """Makes requests of one protocol."""

    def single(self, kind: str, text: str) -> PlannedRequest:
        """One text."""

    def several(self, texts: Sequence[str]) -> PlannedRequest:
        """Several texts in one request."""

    def invalid(self) -> Iterator[PlannedRequest]:
        """Requests that must be refused."""


def run_url(host: str, account: str, model: str) -> str:
    """The address to post to; ``host`` may end with ``/client/v4`` or not."""
    base = host.rstrip("/").removesuffix(_BASE)
    return f"{base}{_BASE}/accounts/{account}/ai/run/{model}"


def read_texts(path: Path = SENTENCES, limit: int = 256) -> list[str]:
    """At most ``limit`` different sentences, evenly spread, so that their mix of lengths stays."""
    with path.open(newline="", encoding="utf-8") as file:
        texts = list(dict.fromkeys(row["text"] for row in csv.DictReader(file, delimiter="\t")))
    return [texts[place * len(texts) // limit] for place in range(limit)] if len(texts) > limit else texts


def long_texts(sentences: Sequence[str], count: int = LONG_TEXTS) -> list[str]:
    """Texts of 30 to 450 words, the longest longer than the model reads, out of ``sentences``."""
    words = " ".join(sentences).split()
    texts = []
    for number in range(1, count + 1):
        size = _LONG_WORDS * number // count
        start = (number * 997) % max(1, len(words) - size)
        texts.append(" ".join(words[start : start + size]))
    return list(dict.fromkeys(texts))


def parse_traffic(text: str) -> dict[str, float]:
    """``single``, ``mixed``, or kinds with weights: ``single=9,long=1``.

    Raises:
        ValueError: an unknown kind, or a weight that is no positive number.
    """
    if text == "mixed":
        return dict(MIXED)
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, _, weight = part.strip().partition("=")
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is none of {', '.join(KINDS)} or mixed")
        weights[kind] = float(weight or 1)
        if not 0 < weights[kind] < float("inf"):
            raise ValueError(f"the weight of {kind} must be above 0")
    return weights


class Traffic:
    """Draws calls of a mix."""

    def __init__(
        self, requests: RequestMaker, weights: Mapping[str, float], sentences: Sequence[str], seed: int
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 (a load test needs no secrecy)
        makers: dict[str, Callable[[], list[PlannedRequest]]] = {
            "single": lambda: [requests.single("single", text) for text in sentences],
            "several": lambda: [
                requests.several(self._random.sample(sentences, SEVERAL_TEXTS)) for _ in range(_BODIES)
            ],
            "long": lambda: [requests.single("long", text) for text in long_texts(sentences)],
            "invalid": lambda: list(requests.invalid()),
        }
        self._kinds = list(weights)
        self._weights = list(weights.values())
        self._calls = {kind: makers[kind]() for kind in weights}

    @property
    def texts(self) -> list[str]:
        """Every text that may be asked, each once."""
        calls = (call for calls in self._calls.values() for call in calls)
        return list(dict.fromkeys(text for call in calls for text in call.texts))

    def draw(self) -> PlannedRequest:
        """The next call."""
        kind = self._random.choices(self._kinds, self._weights)[0]
        return self._random.choice(self._calls[kind])

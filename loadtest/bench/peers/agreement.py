"""Whether the peers compute what we compute: a server with other answers is no peer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import uvloop

from loadtest.bench.peers.ways import MeasuredServer
from loadtest.checks import Scores, difference, read_scores
from loadtest.client import LoadError, Target
from loadtest.closed_loop import ask

_TIMEOUT_S = 120.0
_CONNECTIONS = 32
"""Enough that servers which batch do so."""


def compare_answers(servers: Sequence[MeasuredServer], texts: Sequence[str]) -> float:
    """Ask every text of every server; return the largest |difference| of a score from the first server's.

    Raises:
        LoadError: a server did not answer, or with other labels, or a score is more than BOUND away.
    """
    ours, *peers = servers
    expected = answers(ours.target, texts)
    largest = 0.0
    for peer in peers:
        for found, wanted in zip(answers(peer.target, texts), expected, strict=True):
            apart = difference(found, wanted)
            peer.require_agreement(apart)
            largest = max(largest, apart)
    return largest


def answers(target: Target, texts: Sequence[str], timeout_s: float = _TIMEOUT_S) -> list[Scores]:
    """The scores of each text, in order.

    Raises:
        LoadError: an answer was not 200, held no scores, or did not come in time.
    """
    found: dict[int, Scores] = {}
    walks = [range(start, len(texts), _CONNECTIONS) for start in range(min(_CONNECTIONS, len(texts)))]

    def on_answer(place: int, _latency: float, body: bytes) -> None:
        found[place] = _read(body)

    try:
        uvloop.run(asyncio.wait_for(ask(target, texts, walks, on_answer), timeout_s))
    except asyncio.TimeoutError as error:
        raise LoadError(f"{len(texts) - len(found)} of {len(texts)} texts were not answered") from error
    return [found[place] for place in range(len(texts))]


def _read(body: bytes) -> Scores:
    """``[{"label": …, "score": …}]``, as peers answer, or the same as ``result`` of an envelope, as we do."""
    try:
        answer = json.loads(body)
        return read_scores(answer["result"] if isinstance(answer, dict) else answer)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LoadError("an answer holds no scores") from error

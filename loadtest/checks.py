"""Whether an answer is the right one: its shape, and its scores where a reference is known.

The outcome of a call is a short word that names it in tables: ``ok``, ``429/3040``, ``wrong score``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from loadtest.traffic import PlannedRequest

OK = "ok"
WRONG_SHAPE = "wrong shape"
WRONG_SCORE = "wrong score"
WRONG_REFUSAL = "wrong refusal"
WRONG = frozenset({WRONG_SHAPE, WRONG_SCORE, WRONG_REFUSAL})
"""Outcomes that no threshold forgives."""

Scores = Mapping[str, float]
"""Label to score, in the order of the answer."""


class References:
    """The expected answer to each text, and how far an answer may be from it."""

    def __init__(self, scores: Mapping[str, Scores], tolerance: float) -> None:
        self.scores = scores
        self.tolerance = tolerance

    def agree(self, text: str, answer: Scores) -> bool:
        """Whether labels, their order and scores are those of the reference; unknown texts agree."""
        wanted = self.scores.get(text)
        if wanted is None:
            return True
        return difference(answer, wanted) <= self.tolerance


def difference(found: Scores, expected: Scores) -> float:
    """The largest |difference| of a label's score; infinite if the labels or their order differ."""
    if list(found) != list(expected):
        return math.inf
    return max((abs(found[label] - score) for label, score in expected.items()), default=0.0)


def outcome_of(call: PlannedRequest, status: int, body: bytes, references: References) -> str:
    """Name the outcome of an answer to ``call``."""
    try:
        answer = json.loads(body)
    except ValueError:
        return f"{status}/no JSON" if status != 200 else WRONG_SHAPE
    try:
        if call.refusal is not None:
            return _refusal_outcome(call, status, answer)
        if status != 200:
            return f"{status}/{answer['errors'][0]['code']}"
        found = _read(call, answer)
    except (LookupError, TypeError, AttributeError, ValueError):
        return WRONG_SHAPE
    if all(references.agree(text, scores) for text, scores in zip(call.texts, found, strict=True)):
        return OK
    return WRONG_SCORE


def _refusal_outcome(call: PlannedRequest, status: int, answer: Any) -> str:
    refusal = call.refusal
    if refusal is None or status == 200:
        return WRONG_REFUSAL
    error = answer["errors"][0]
    words = refusal.messages.get(error["code"])
    if status != refusal.status or words is None:
        # Under overload an invalid request may be refused for that; it is an error like others.
        return f"{status}/{error['code']}" if status in (408, 429, 503) else WRONG_REFUSAL
    good = words in error["message"] and answer["success"] is False
    return OK if good else WRONG_REFUSAL


def _read(call: PlannedRequest, answer: Any) -> list[Scores]:
    """The scores of each text.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: not of the documented shape.
    """
    if set(answer) != {"result", "success", "errors", "messages"} or answer["success"] is not True:
        raise ValueError("not the envelope of a success")
    if answer["errors"] != [] or answer["messages"] != []:
        raise ValueError("a success with errors")
    if call.kind != "several":
        return [read_scores(answer["result"])]
    responses = answer["result"]["responses"]
    found = []
    for place, response in enumerate(responses):
        if (response["id"], response["external_reference"]) != (place, str(place)):
            raise ValueError("answers out of order")
        if response["success"] is not True:
            raise ValueError("a text of several was not answered")
        found.append(read_scores(response["result"]))
    if len(found) != len(call.texts):
        raise ValueError("not one answer a text")
    return found


def scores_of(body: bytes) -> Scores:
    """The scores of a good answer to a single text.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is something else.
    """
    return read_scores(json.loads(body)["result"])


def read_scores(result: Any) -> Scores:
    """Read ``[{"label": …, "score": …}, …]`` with at least two labels and scores in 0…1.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is something else.
    """
    scores: dict[str, float] = {}
    for entry in result:
        label, score = entry["label"], entry["score"]
        if len(entry) != 2 or not isinstance(label, str) or not isinstance(score, (int, float)):
            raise ValueError("not a label with a score")
        if not 0 <= score <= 1:  # NaN is neither
            raise ValueError("a score outside 0…1")
        scores[label] = float(score)
    if len(scores) < 2 or len(scores) != len(result):
        raise ValueError("too few labels, or one twice")
    return scores

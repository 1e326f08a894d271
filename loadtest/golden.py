"""Whether a server of the bundled checkpoint answers as PyTorch does.

The server's own answers are the reference of a load test, so a server that is wrong from the beginning
would pass. Of the bundled checkpoint the logits are known: ``make golden`` writes what ``transformers``
computes from it in FP32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

from loadtest.checks import Scores
from loadtest.reference import NoReferenceError, past_proxies
from loadtest.traffic import run_url

GOLDEN = Path(__file__).with_name("golden_logits.jsonl")
CHECKPOINT = "minilm-sst2"
"""What the catalogue names as the source of the bundled model."""
LEAST_AGREEMENT = 0.97
"""Share of the texts with the same best label; INT8 turns a few that are close to even."""
MOST_SHIFT = 0.03
"""Mean difference of a score."""


def is_bundled(host: str, account: str, model: str, token: str, timeout_s: float, verify: bool) -> bool:
    """Whether the server's catalogue names the bundled checkpoint as the model's source."""
    url = run_url(host, account, "").removesuffix("run/") + "models/search"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = requests.get(
            url,
            {"search": model},
            headers=headers,
            timeout=timeout_s,
            verify=verify,
            allow_redirects=False,
            proxies=past_proxies(url),
        )
        properties = next(one["properties"] for one in answer.json()["result"] if one["name"] == model)
        return any(
            one["property_id"] == "info" and Path(one["value"]).name == CHECKPOINT for one in properties
        )
    except (requests.RequestException, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return False


def read_golden(file: Path = GOLDEN) -> dict[str, list[float]]:
    """Read the scores of each text, in the order of the labels.

    Raises:
        NoReferenceError: the file cannot be read.
    """
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return {line["text"]: _softmax(line["logits"]) for line in lines}
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise NoReferenceError(f"{file} holds no logits: {exc}") from exc


def _softmax(logits: Sequence[float]) -> list[float]:
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return [one / sum(exponentials) for one in exponentials]


def compare(golden: Mapping[str, Sequence[float]], answers: Mapping[str, Scores]) -> str:
    """Compare the answers with the logits; return how well they agree.

    Raises:
        NoReferenceError: they do not.
    """
    same, shift = 0, 0.0
    for text, wanted in golden.items():
        found = list(answers[text].values())
        if len(found) != len(wanted):
            raise NoReferenceError(f"asked alone, the server gave {len(found)} labels, not {len(wanted)}")
        same += found.index(max(found)) == wanted.index(max(wanted))
        shift += max(abs(one - other) for one, other in zip(found, wanted, strict=True)) / len(golden)
    agreement = f"{same} of {len(golden)} labels as FP32 PyTorch, scores {shift:.3f} apart on average"
    if not (same >= LEAST_AGREEMENT * len(golden) and shift <= MOST_SHIFT):
        raise NoReferenceError(f"the server does not answer as the bundled checkpoint: {agreement}")
    return agreement

"""Ask every artefact about every text, and compare the answers with the reference's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from export.artefact import Logits
from export.checkpoint.pairs import PairTokenizer
from export.evaluation.classification import Quality, quality
from export.evaluation.data import Examples
from export.evaluation.host import Host, describe_host
from export.evaluation.invariance import Invariance, InvarianceSettings, check_invariance
from export.evaluation.metrics import (
    Accuracy,
    Agreement,
    Answers,
    Scores,
    accuracy,
    agreement,
    answers,
    flipped,
    shifts,
)
from export.evaluation.ranking import Ranking, compare_rankings
from export.evaluation.runner import Candidate, run_grouped
from export.evaluation.settings import TimingSettings
from export.evaluation.timing import Speed, time_artefacts


class Progress(Protocol):
    """Hears what is being done."""

    def step(self, name: str) -> None:
        """A new piece of work begins."""

    def advance(self, done: int, total: int) -> None:
        """So much of it is done."""


class Silent:
    """A Progress that discards every step."""

    def step(self, name: str) -> None:
        """Nothing."""

    def advance(self, done: int, total: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Measurement:
    """What was found about one artefact.

    accuracy: None without labels, and for rerankers. agreement: with the reference, which agrees with itself.
    flipped: indices of texts that the reference calls otherwise, or that are first for a query instead of
    the reference's. shifts: |Δp| to the reference, float64 [texts]. speed: None if no time was taken. size:
    bytes. ranking: of rerankers only. quality: where there are labels to judge a classifier by.
    """

    precision: str
    size: int
    accuracy: Accuracy | None
    agreement: Agreement
    flipped: tuple[int, ...]
    invariance: Invariance
    speed: Speed | None
    answers: Answers
    shifts: Scores
    ranking: Ranking | None = None
    quality: Quality | None = None


@dataclass(frozen=True)
class Evaluation:
    """All measurements of one run, in the order of the artefacts, with what they were taken on."""

    reference: str
    labels: tuple[str, ...]
    problem_type: str
    examples: Examples
    tokens: npt.NDArray[np.int64]
    host: Host
    invariance: InvarianceSettings
    timing: TimingSettings | None
    measurements: dict[str, Measurement]


def evaluate(
    artefacts: Mapping[str, Candidate],
    examples: Examples,
    tokenizer: Tokenizer | PairTokenizer,
    *,
    labels: tuple[str, ...],
    problem_type: str,
    max_tokens: int,
    reference: str = "fp32",
    invariance: InvarianceSettings | None = None,
    timing: TimingSettings | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure artefacts on all examples.

    Args:
        artefacts: any number of them under free names; the reference is one.
        examples: texts, with labels if accuracy is to be measured; for a reranker pairs, all of which have
            room for their texts.
        tokenizer: one that truncates to ``max_tokens`` and does not pad; a reranker's makes pairs.
        labels: label names in the order of the logits.
        problem_type: how logits become scores.
        max_tokens: the longest input that the model takes.
        reference: name of the artefact that the others are compared with.
        invariance: how the dependence on neighbours is tried.
        timing: how time is taken; None leaves it out.
        progress: called at every step.

    Raises:
        VerificationError: an artefact cannot be loaded as what it should be.
    """
    progress = progress or Silent()
    invariance = invariance or InvarianceSettings()
    rows = _rows(tokenizer, examples)
    host = describe_host()
    logits, neighbours = {}, {}
    for name, candidate in artefacts.items():
        runner = candidate.open(host.cores)
        progress.step(f"scoring {len(rows):,} {'pairs' if examples.queries else 'texts'} with {name}")
        logits[name] = run_grouped(runner, rows, progress.advance)
        progress.step(f"checking that {name} ignores neighbours")
        neighbours[name] = check_invariance(
            runner, rows, max_tokens, problem_type, invariance, progress.advance
        )
    speeds: dict[str, Speed] = {}
    if timing is not None:
        progress.step(f"timing {', '.join(artefacts)} in alternating rounds")
        speeds = time_artefacts(artefacts, reference, rows, max_tokens, timing, progress.advance)
    return Evaluation(
        reference=reference,
        labels=labels,
        problem_type=problem_type,
        examples=examples,
        tokens=np.array([len(row) for row in rows], np.int64),
        host=host,
        invariance=invariance,
        timing=timing,
        measurements=_compare(artefacts, logits, reference, examples, problem_type, neighbours, speeds),
    )


def _rows(tokenizer: Tokenizer | PairTokenizer, examples: Examples) -> list[list[int]]:
    if isinstance(tokenizer, PairTokenizer):
        return [row for row in tokenizer.rows(examples.pairs) if row is not None]
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(examples.texts))]


def _compare(
    artefacts: Mapping[str, Candidate],
    logits: Mapping[str, Logits],
    reference: str,
    examples: Examples,
    problem_type: str,
    neighbours: Mapping[str, Invariance],
    speeds: Mapping[str, Speed],
) -> dict[str, Measurement]:
    given = {name: answers(each, problem_type) for name, each in logits.items()}
    expected, targets = given[reference], examples.targets
    if examples.queries is not None:
        return _compare_rerankers(artefacts, logits, reference, examples, given, neighbours, speeds)
    return {
        name: Measurement(
            precision=artefacts[name].precision,
            size=artefacts[name].size,
            accuracy=None if targets is None else accuracy(own, targets, problem_type),
            agreement=agreement(own, expected),
            flipped=tuple(np.flatnonzero(flipped(own, expected)).tolist()),
            invariance=neighbours[name],
            speed=speeds.get(name),
            answers=own,
            shifts=shifts(own.scores, expected.scores),
            quality=None if targets is None else quality(own, targets, problem_type),
        )
        for name, own in given.items()
    }


def _compare_rerankers(
    artefacts: Mapping[str, Candidate],
    logits: Mapping[str, Logits],
    reference: str,
    examples: Examples,
    given: Mapping[str, Answers],
    neighbours: Mapping[str, Invariance],
    speeds: Mapping[str, Speed],
) -> dict[str, Measurement]:
    relevant = None if examples.targets is None else examples.targets[:, 0]
    # Scores that are not finite have failed anyway; here they must only be comparable.
    order = {name: np.nan_to_num(each[:, 0]) for name, each in logits.items()}
    rankings = {
        name: compare_rankings(own, order[reference], examples.groups, relevant)
        for name, own in order.items()
    }
    return {
        name: Measurement(
            precision=artefacts[name].precision,
            size=artefacts[name].size,
            accuracy=None,
            agreement=agreement(own, given[reference]),
            flipped=rankings[name].changed,
            invariance=neighbours[name],
            speed=speeds.get(name),
            answers=own,
            shifts=shifts(own.scores, given[reference].scores),
            ranking=rankings[name],
        )
        for name, own in given.items()
    }

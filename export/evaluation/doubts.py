"""Signs that a model is useless although it answers as FP32 does.

Limits compare artefacts with FP32 and cannot see that FP32 itself is wrong: labels in another order,
weights that were never trained, a head that answers the same to everything. A sign *stops* the
publication where there are enough texts; else it is a warning.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from export.evaluation.assignment import best_assignment
from export.evaluation.classification import most_frequent
from export.evaluation.data import MULTI_LABEL, Targets
from export.evaluation.evaluate import Evaluation
from export.evaluation.metrics import Chosen
from export.evaluation.ranking import Ranking

FEWEST_TEXTS = 20
"""Fewer prove nothing: three right answers of five may be luck."""
FEWEST_OTHERS = 10
"""Texts without the commonest label from which on a model can be told from one answer to everything."""
USEFUL = 0.5
"""A useful model finds at least this share of the texts without the answer that it gives to nearly all."""
CHANCE = 0.01
"""A useful model gives one answer so often with at most this probability (exact binomial test)."""
ONE_ANSWER = 0.95
"""Share of the texts with the same answer from which on it is a sign, and not a lopsided data set."""
MARGIN = 0.05
"""By so much the answer must be rarer in the data."""
DEVIATIONS = 3.0
"""Standard deviations by which another order of labels must fit better (McNemar's test)."""
KNOWLEDGE = 0.01
"""By so much another order must beat the same answer to everything where the model hardly says anything
else: a constant is in no order."""
MOST_LABELS = 300
"""More labels than that are not permuted: it would take long."""
SHOWN_LABELS = 20


@dataclass(frozen=True)
class Doubt:
    """One sign: what was found, in numbers, and what to do about it.

    stops: it stops the publication, unless poor models are allowed. order: the names of the labels in the
    order that fits better, for ``label order``.
    """

    check: str
    found: str
    remedy: str
    stops: bool = False
    order: tuple[str, ...] = ()


def doubts(evaluation: Evaluation, artefact: str) -> list[Doubt]:
    """What speaks against publishing an artefact; empty where nothing does or too few texts were asked."""
    ranking = evaluation.measurements[artefact].ranking
    if ranking is not None:
        return _of_ranking(ranking, evaluation.examples.source)
    chosen, targets = evaluation.measurements[artefact].answers.chosen, evaluation.examples.targets
    if len(chosen) < FEWEST_TEXTS:
        return []
    if targets is None:
        found = [_one_answer(evaluation, chosen, None)]
    else:
        found = [
            _permuted(evaluation, chosen, targets),
            _majority(evaluation, chosen, targets),
            _one_answer(evaluation, chosen, targets),
        ]
    return [each for each in found if each is not None]


def _of_ranking(ranking: Ranking, source: str) -> list[Doubt]:
    found = []
    if ranking.flat >= ONE_ANSWER * ranking.queries:
        found.append(
            Doubt(
                "one score",
                f"The model gives all texts of a query the same score, for {ranking.flat:,} of "
                f"{ranking.queries:,} queries from {source}.",
                "Check that the weights are the trained ones, and that they were trained on pairs of texts.",
                stops=ranking.queries >= FEWEST_TEXTS,
            )
        )
    relevance = ranking.relevance
    if relevance is not None and relevance.queries >= FEWEST_TEXTS and relevance.mrr <= relevance.random:
        backwards = f"; backwards it would be {relevance.backwards:.3f}"
        found.append(
            Doubt(
                "no better than chance",
                f"MRR@10 is {relevance.mrr:.3f} over {relevance.queries:,} queries, and a random order would "
                f"give {relevance.random:.3f}{backwards if relevance.backwards > relevance.random else ''}.",
                f"Check that label is 1 for relevant texts in {source}, that the weights are the trained "
                "ones, and that the model scores a query with a text.",
                stops=True,
            )
        )
    return found


def _permuted(evaluation: Evaluation, chosen: Chosen, targets: Targets) -> Doubt | None:
    order = best_order(chosen, targets)
    now = (chosen == targets).all(axis=1)
    then = (chosen == targets[:, order]).all(axis=1)
    won, lost = int((then & ~now).sum()), int((now & ~then).sum())
    if won <= lost or (won - lost) ** 2 < DEVIATIONS**2 * (won + lost):
        return None
    constant = most_frequent(chosen)[1] >= ONE_ANSWER * len(chosen)
    if constant and then.sum() <= most_frequent(targets)[1] + KNOWLEDGE * len(then):
        return None
    labels, source = evaluation.labels, evaluation.examples.source
    changed = [f'"{i}": {json.dumps(labels[order[i]])}' for i in range(len(labels)) if order[i] != i]
    more = f" and {len(changed) - SHOWN_LABELS} more" if len(changed) > SHOWN_LABELS else ""
    fitting = ", ".join(changed[:SHOWN_LABELS]) + more
    return Doubt(
        "label order",
        f"The model is right for {_percent(now.sum(), len(now))} of {len(now):,} texts; with its labels in "
        f"another order it would be right for {_percent(then.sum(), len(then))}.",
        f"If {source} is labelled right, id2label in config.json is not in the order of the model's scores. "
        f"This would fit: {fitting}. Correct it and export again. Where {source} gives labels as numbers, "
        "write their names first: a number counts in the order of id2label.",
        stops=True,
        order=tuple(labels[i] for i in order),
    )


def best_order(chosen: Chosen, targets: Targets) -> list[int]:
    """For each label of the model, the label of the data that its answers fit best."""
    order = list(range(chosen.shape[1]))
    occurring = np.flatnonzero(chosen.any(axis=0) | targets.any(axis=0))
    if 0 < len(occurring) <= MOST_LABELS:
        # Counts are exact in FP64, whose products are far faster than those of integers.
        mine, wanted = chosen[:, occurring].astype(np.float64), targets[:, occurring].astype(np.float64)
        fit = mine.T @ wanted + (1 - mine).T @ (1 - wanted)
        for label, other in zip(occurring, occurring[best_assignment(fit.astype(np.int64))], strict=True):
            order[label] = int(other)
    return order


def _majority(evaluation: Evaluation, chosen: Chosen, targets: Targets) -> Doubt | None:
    answer, texts = most_frequent(targets)
    right, total = int((chosen == targets).all(axis=1).sum()), len(targets)
    source = evaluation.examples.source
    if texts == total:
        return Doubt(
            "one label in the data",
            f"Every one of the {total:,} texts is labelled {_named(evaluation, answer)}: accuracy cannot "
            "tell this model from one that always says so.",
            f"Put texts of the other labels into {source} and export again.",
        )
    if right > texts:
        return None
    return Doubt(
        "majority",
        f"The model is right for {_percent(right, total)} of {total:,} texts; the same answer to all of "
        f"them, {_named(evaluation, answer)}, would be right for {_percent(texts, total)}.",
        f"Check that {source} is meant for this model, that id2label in config.json is in the order of its "
        "scores, and that the weights are the trained ones.",
        # Of several labels a text all must be right, which a useful model may seldom be.
        stops=evaluation.problem_type != MULTI_LABEL and total - texts >= FEWEST_OTHERS,
    )


def _one_answer(evaluation: Evaluation, chosen: Chosen, targets: Targets | None) -> Doubt | None:
    answer, texts = most_frequent(chosen)
    total, source = len(chosen), evaluation.examples.source
    if texts < ONE_ANSWER * total:
        return None
    said = f"The model answers {_named(evaluation, answer)} to {texts:,} of {total:,} texts"
    said += f" ({_percent(texts, total)})"
    if targets is None:
        return Doubt(
            "one answer",
            f"{said}: {source}, which are about many things.",
            "If that cannot be right, the weights are not the trained ones. Judge the model on labelled "
            "texts of its own subject: --eval FILE.",
        )
    wanted = int((targets == answer).all(axis=1).sum())
    if wanted > texts - MARGIN * total:
        return None
    return Doubt(
        "one answer",
        f"{said}; {source} has it for {wanted:,} ({_percent(wanted, total)}).",
        "Check that the weights are the trained ones and that the texts are like those it was trained on.",
        # Even if all other answers were right: so few of the texts with other labels were found.
        stops=chance_of(total - texts, total - wanted, USEFUL) < CHANCE,
    )


def chance_of(successes: int, trials: int, share: float) -> float:
    """The probability of at most so many successes, each of probability ``share`` (binomial)."""
    if successes >= trials or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    done = np.arange(successes)
    steps = np.log((trials - done) / (done + 1)) + math.log(share / (1 - share))
    logs = trials * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.exp(logs).sum())


def _named(evaluation: Evaluation, answer: Chosen) -> str:
    names = [repr(evaluation.labels[i]) for i in np.flatnonzero(answer)]
    return " and ".join(names) or "no label"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %"

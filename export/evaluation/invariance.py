"""Does an answer depend on the texts beside it?

No test can try every batch, so the compositions are those in which a scheme that looks at its
neighbours gives itself away: random company of many sizes, the shortest texts beside the
longest, one short text among long ones, a text as long as the model allows, and the groups
that the served encoder makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from export.artefact import Logits
from export.evaluation.metrics import answers, flipped, shifts
from export.evaluation.runner import Rows, Runner, run_rows
from export.rows import PairRow
from export.triton_models.text_queue import length_groups

# Descending and ascending mixed, so that a small set of texts meets large batches as well.
BATCH_SIZES = (64, 2, 32, 3, 21, 5, 13, 8)
FEW = 4
# No padded batch is larger than this many tokens: with texts of 512 beside it, 64 would take minutes.
LARGEST_BATCH = 4096


@dataclass(frozen=True)
class InvarianceSettings:
    """How many texts are tried, spread evenly over all lengths, and what the shuffling starts from."""

    texts: int = 160
    seed: int = 0


@dataclass(frozen=True)
class Composition:
    """Batches of one kind, as indices of texts."""

    name: str
    batches: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Tried:
    """What one kind of batches did; ``rows`` counts texts as often as they were in one."""

    name: str
    batches: int
    rows: int
    largest_shift: float
    flips: int


@dataclass(frozen=True)
class Invariance:
    """Largest |Δp| of any text between alone and in a batch, and the indices of texts that changed label."""

    texts: int
    largest_shift: float
    flipped: tuple[int, ...]
    tried: tuple[Tried, ...]


def pick_evenly(lengths: Sequence[int], count: int) -> list[int]:
    """Indices of at most ``count`` texts, evenly spread from the shortest to the longest."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(index) for index in order[places]]


def compositions(lengths: Sequence[int], seed: int) -> Iterator[Composition]:
    """Batches of 2 to 64 texts; the last text is taken for one as long as the model allows.

    Args:
        lengths: tokens of each text, at least one text beside the last.
        seed: of the shuffling.
    """
    limit = len(lengths) - 1
    order = sorted(range(limit), key=lengths.__getitem__)
    shuffled = [int(index) for index in np.random.default_rng(seed).permutation(limit)]
    few = min(FEW, limit)
    short, long = order[: few * 7], order[-few:]
    yield Composition("shuffled, 2 to 64 texts", tuple(_cut(shuffled, lengths)))
    yield Composition(
        "the shortest beside one of the longest",
        tuple((*short[i::few], long[i]) for i in range(few)),
    )
    yield Composition(
        "one of the shortest among the longest",
        tuple((order[i], *order[-7:]) for i in range(few)),
    )
    yield Composition(
        "beside a text of the greatest length allowed",
        ((order[0], limit), (limit, order[limit // 2], order[-1])),
    )
    groups = length_groups([lengths[index] for index in shuffled])
    yield Composition(
        "groups of like length, as served",
        tuple(tuple(shuffled[index] for index in group) for group in groups),
    )


def _cut(order: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    sizes = cycle(BATCH_SIZES)
    batch: list[int] = []
    size = next(sizes)
    for index in order:
        area = (len(batch) + 1) * max(lengths[other] for other in (*batch, index))
        if len(batch) == size or (len(batch) > 1 and area > LARGEST_BATCH):
            yield tuple(batch)
            batch, size = [], next(sizes)
        batch.append(index)
    if batch:
        yield tuple(batch)


def longest_allowed(rows: Rows, max_tokens: int) -> list[int]:
    """Token ids [max_tokens]: the rows' own tokens one after another, between the ends of the first row.

    Where rows have token types, so has this one: 0 in its first half, 1 in its second.
    """
    inner = [token for row in rows for token in row[1:-1]] or list(rows[0])
    row = [rows[0][0], *islice(cycle(inner), max(0, max_tokens - 2)), rows[0][-1]]
    if isinstance(rows[0], PairRow):
        return PairRow(row, [int(place >= len(row) // 2) for place in range(len(row))])
    return row


def check_invariance(
    runner: Runner,
    rows: Rows,
    max_tokens: int,
    problem_type: str,
    settings: InvarianceSettings,
    advance: Callable[[int, int], None],
) -> Invariance:
    """Ask about texts alone and in batches.

    Args:
        runner: the loaded model.
        rows: token ids of all texts; ``settings`` limits how many of them are tried.
        max_tokens: the longest input that the model takes.
        problem_type: how logits become scores.
        settings: number of texts and seed.
        advance: called with the number of texts done and the total.

    Returns:
        What was found; ``flipped`` counts in ``rows``.
    """
    picked = pick_evenly([len(row) for row in rows], settings.texts)
    used = [*(rows[index] for index in picked), longest_allowed(rows, max_tokens)]
    kinds = list(compositions([len(row) for row in used], settings.seed))
    total = len(used) + sum(len(batch) for kind in kinds for batch in kind.batches)
    done = 0
    singles = []
    for row in used:
        singles.append(run_rows(runner, [row]))
        done += 1
        advance(done, total)
    alone = np.concatenate(singles)
    tried = []
    changed: set[int] = set()
    for kind in kinds:
        parts = []
        for batch in kind.batches:
            parts.append(run_rows(runner, [used[index] for index in batch]))
            done += len(batch)
            advance(done, total)
        places = [index for batch in kind.batches for index in batch]
        found, flips = _compare(kind, np.concatenate(parts), alone[places], problem_type)
        tried.append(found)
        changed.update(places[i] for i in flips)
    # The text at the limit was made up here, so it is in no list of the caller's texts.
    inside = sorted(picked[i] for i in changed if i < len(picked))
    return Invariance(len(used), max(each.largest_shift for each in tried), tuple(inside), tuple(tried))


def _compare(kind: Composition, padded: Logits, alone: Logits, problem_type: str) -> tuple[Tried, list[int]]:
    beside, single = answers(padded, problem_type), answers(alone, problem_type)
    largest = float(shifts(beside.scores, single.scores).max())
    flips = np.flatnonzero(flipped(beside, single)).tolist()
    return Tried(kind.name, len(kind.batches), len(padded), largest, len(flips)), flips

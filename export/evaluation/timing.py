"""How fast artefacts are beside each other, one thread each, in alternating rounds.

Every round asks every artefact about the same texts, beginning with another one each time, so
that a slow minute hits them alike; ratios are taken inside a round. Tokenization is not included.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from export.evaluation.invariance import pick_evenly
from export.evaluation.runner import Candidate, Rows, Runner, run_rows
from export.evaluation.settings import TimingSettings
from export.spec import MAX_BATCH_SIZE
from export.triton_models.text_queue import length_groups

LENGTHS = (8, 16, 32, 64, 128, 256, 512)
WARM_UP = 8
FEWEST_TEXTS = 32  # of fewer, hardly two are of like length


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds; ratios to the reference are medians of the rounds' own ratios.

    ``by_length`` is milliseconds a text by its tokens, one text a run; ``texts`` is how many
    texts a round asked about; ``rounds`` is sentences a second in groups, round by round.
    """

    texts: int
    load_ms: float
    grouped_per_second: float
    alone_per_second: float
    alone_ms: float
    alone_p99_ms: float
    grouped_ratio: float
    alone_ratio: float
    by_length: dict[int, float]
    rounds: tuple[float, ...]


@dataclass
class _Clock:
    """What was measured of one artefact so far; seconds."""

    loads: list[float] = field(default_factory=list)
    grouped: list[float] = field(default_factory=list)
    alone: list[list[float]] = field(default_factory=list)
    by_length: dict[int, list[float]] = field(default_factory=dict)


def time_artefacts(
    artefacts: Mapping[str, Candidate],
    reference: str,
    rows: Rows,
    max_tokens: int,
    settings: TimingSettings,
    advance: Callable[[int, int], None],
) -> dict[str, Speed]:
    """Measure all artefacts in one go.

    Args:
        artefacts: what to measure; all of them are in memory at the same time.
        reference: the key of the one that ratios are taken to.
        rows: token ids of texts in their natural mix of lengths.
        max_tokens: the longest input that the model takes.
        settings: rounds and time.
        advance: called with the number of rounds done and the total.
    """
    clocks = {name: _Clock() for name in artefacts}
    runners = _load(artefacts, clocks, settings.loads)
    texts = _affordable(runners, rows, settings)
    lengths = [length for length in LENGTHS if length <= max_tokens]
    names = list(artefacts)
    for turn in range(settings.rounds):
        first = turn % len(names)
        order = names[first:] + names[:first]
        for name in order:
            clocks[name].alone.append(_one_by_one(runners[name], texts))
        for name in order:
            clocks[name].grouped.append(_in_groups(runners[name], texts))
        for name in order:
            _each_length(runners[name], lengths, texts[0][0], clocks[name])
        advance(turn + 1, settings.rounds)
    return {name: _speed(clock, clocks[reference], len(texts)) for name, clock in clocks.items()}


def _load(artefacts: Mapping[str, Candidate], clocks: Mapping[str, _Clock], times: int) -> dict[str, Runner]:
    runners: dict[str, Runner] = {}
    for _ in range(times):
        for name, candidate in artefacts.items():
            runners.pop(name, None)
            begin = time.perf_counter()
            runners[name] = candidate.open(1)
            clocks[name].loads.append(time.perf_counter() - begin)
    return runners


def _affordable(runners: Mapping[str, Runner], rows: Rows, settings: TimingSettings) -> Rows:
    """As many texts as the slowest artefact can answer in time, spread over all lengths, in random order."""
    lengths = [len(row) for row in rows]
    probe = [rows[index] for index in pick_evenly(lengths, WARM_UP)]
    slowest = 0.0
    for runner in runners.values():
        _one_by_one(runner, probe)  # the first runs of a session also allocate its memory
        slowest = max(slowest, sum(_one_by_one(runner, probe)) / len(probe))
    count = max(FEWEST_TEXTS, int(settings.seconds / slowest))
    picked = mix_of(lengths, count)
    return [rows[index] for index in np.random.default_rng(settings.seed).permutation(picked)]


def mix_of(lengths: Sequence[int], count: int) -> list[int]:
    """Indices of at most ``count`` texts from the middles of equal shares of all, sorted by length.

    Unlike ``pick_evenly``, which makes sure of both extremes, it keeps the mean length.
    """
    count = min(count, len(lengths))
    order = np.argsort(np.asarray(lengths), kind="stable")
    places = ((np.arange(count) + 0.5) * len(order) / count).astype(int)
    return [int(index) for index in order[places]]


def _each_length(runner: Runner, lengths: Sequence[int], token: int, clock: _Clock) -> None:
    for length in lengths:
        # Short texts are over so soon that one run says little.
        times = _one_by_one(runner, [[token] * length] * max(1, 64 // length))
        clock.by_length.setdefault(length, []).append(statistics.median(times))


def _one_by_one(runner: Runner, rows: Rows) -> list[float]:
    times = []
    for row in rows:
        begin = time.perf_counter()
        run_rows(runner, [row])
        times.append(time.perf_counter() - begin)
    return times


def _in_groups(runner: Runner, rows: Rows) -> float:
    """Seconds for all rows in groups of like length, sorted one batch at a time as a server must."""
    begin = time.perf_counter()
    for start in range(0, len(rows), MAX_BATCH_SIZE):
        window = rows[start : start + MAX_BATCH_SIZE]
        for group in length_groups([len(row) for row in window]):
            run_rows(runner, [window[index] for index in group])
    return time.perf_counter() - begin


def _speed(clock: _Clock, reference: _Clock, texts: int) -> Speed:
    single = [1000 * seconds for turn in clock.alone for seconds in turn]
    alone = [sum(turn) for turn in clock.alone]
    reference_alone = [sum(turn) for turn in reference.alone]
    return Speed(
        texts=texts,
        load_ms=1000 * statistics.median(clock.loads),
        grouped_per_second=texts / statistics.median(clock.grouped),
        alone_per_second=texts / statistics.median(alone),
        alone_ms=statistics.median(single),
        alone_p99_ms=float(np.quantile(single, 0.99)),
        grouped_ratio=_ratio(reference.grouped, clock.grouped),
        alone_ratio=_ratio(reference_alone, alone),
        by_length={length: 1000 * statistics.median(times) for length, times in clock.by_length.items()},
        rounds=tuple(texts / seconds for seconds in clock.grouped),
    )


def _ratio(reference: Sequence[float], own: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(reference, own, strict=True))

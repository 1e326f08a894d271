"""Throughput and latency over HTTP on the device, beside what the device can do inside one process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from loadtest.bench.figures import Sample
from loadtest.bench.gpu import open_gpus
from loadtest.bench.sentences import read_sentences
from loadtest.bench.wrk import Wrk, find_wrk, wrk_version
from loadtest.client import LoadError, Target
from loadtest.closed_loop import Load, over_http
from tools.gpu_check.answers import exact_texts
from tools.gpu_check.ceiling import Ceiling
from tools.gpu_check.job import CheckFailed, CheckSkipped, Job
from tools.gpu_check.models import FEW_TEXTS, PRECISIONS, served_models
from tools.gpu_check.session import MOST_TOKENS
from tools.gpu_check.stack import Stack, running_stack
from tritonflare.paths import CHECKPOINT

SENTENCES = 0
"""Stands for real sentences in the place of a length in tokens."""
_SPARE_S = 6.0
"""For servers to stop."""
_TEXTS_OF_A_LENGTH = 16
_MANY_WORKERS_FROM = 128
"""Connections from which one process of the gateway may be the limit."""


@dataclass(frozen=True)
class Grid:
    """What is measured. groups: texts of an in-process run. workers: gateway processes. most_s: of a way."""

    connections: Sequence[int]
    lengths: Sequence[int]
    groups: Sequence[int]
    workers: Sequence[int]
    most_s: float = 3.0


def grid(short: bool, cores: int) -> Grid:
    """The loads of a short or a whole run; several gateway processes only where there are cores for them."""
    if short:
        return Grid((1, 8), (16,), (1, 8), (1,), most_s=0.5)
    several = () if cores < 8 else (min(8, cores // 2),)
    return Grid((1, 8, 32, 128, 512), (16, 32, 64, 128, 256, 512), (1, 32, 128, 512), (1, *several))


@dataclass(frozen=True)
class Way:
    """One measurement. ``tokens`` is SENTENCES or a length; ``at_once`` is connections, or texts a run."""

    way: str
    precision: str
    tokens: int
    at_once: int
    workers: int

    def __str__(self) -> str:
        texts = "sentences" if self.tokens == SENTENCES else f"{self.tokens} tokens"
        workers = f", {self.workers} gateway processes" if self.workers > 1 else ""
        unit = "a run" if self.way == IN_PROCESS else "connections"
        return f"{self.way}, {self.precision}, {texts}, {self.at_once} {unit}{workers}"


IN_PROCESS, HTTP, NULL = "in-process", "HTTP", "null model"


def ways(loads: Grid) -> Iterator[Way]:
    """All measurements, the most telling first, because the time may end before the last."""
    first = [count for count in (128, 1) if count in loads.connections] or list(loads.connections)
    rest = [count for count in loads.connections if count not in first]
    for precision in PRECISIONS:
        yield from (Way(IN_PROCESS, precision, SENTENCES, group, 1) for group in loads.groups)
        yield from _over_http(HTTP, precision, loads)
    yield from _over_http(NULL, "", loads)
    for precision in PRECISIONS:
        for tokens in loads.lengths:
            yield from (Way(IN_PROCESS, precision, tokens, group, 1) for group in loads.groups if group > 1)
            yield from (Way(HTTP, precision, tokens, count, 1) for count in first)
    for precision in PRECISIONS:
        for tokens in loads.lengths:
            yield from (Way(HTTP, precision, tokens, count, 1) for count in rest)


def _over_http(way: str, precision: str, loads: Grid) -> Iterator[Way]:
    for workers in loads.workers:
        for count in loads.connections:
            if workers == 1 or count >= _MANY_WORKERS_FROM:
                yield Way(way, precision, SENTENCES, count, workers)


def bench(job: Job) -> str:
    """Measure what there is time for; a way that is left out is said."""
    loads = grid(job.settings.short, len(os.sched_getaffinity(0)))
    load, generator = load_generator()
    planned = list(ways(loads))
    job.figures(load_generator=generator, planned=len(planned))
    with running_stack(job, loads.workers) as stack, open_gpus() as gpus:
        measure = _Measuring(job, stack, load)
        for place, way in enumerate(planned):
            seconds = _seconds(job.left_s - _SPARE_S, len(planned) - place, loads.most_s)
            job.steps.step(str(way))
            if why := measure.why_not(way, seconds):
                job.leave_out(f"{way}: {why}")
                continue
            taken = measure.of(way, seconds)
            _measure(job, way, taken if gpus is None else partial(gpus.around, taken))
    if not job.rows:
        raise CheckSkipped("There was no time to measure anything.")
    if failed := [row["way"] for row in job.rows if row.get("error")]:
        raise CheckFailed(f"{len(failed)} of {len(job.rows)} measurements failed.")
    return f"{len(job.rows)} of {len(planned)} measurements were taken."


def _seconds(left_s: float, ways_left: int, most_s: float) -> float:
    """How long a measurement takes; half of the time is for starting, warming up and the last answers."""
    return min(most_s, max(0.4, left_s / ways_left / 2))


def load_generator() -> tuple[Load, str]:
    """The load generator and its name: wrk where it runs, which leaves more of the cores to the servers."""
    program = find_wrk()
    version = "unknown" if program is None else wrk_version(program)
    # One that was packed elsewhere may not run here.
    if program is None or version == "unknown":
        return over_http, "our own asyncio client"
    return Wrk(program), f"wrk {version}"


def _measure(job: Job, way: Way, measure: Callable[[], Sample]) -> None:
    facts = {"way": way.way, "precision": way.precision, "tokens": way.tokens}
    facts |= {"at_once": way.at_once, "workers": way.workers}
    try:
        sample = measure()
    except LoadError as error:
        job.row(**facts, error=str(error))
        return
    figures = {key: float(f"{value:.4g}") for key, value in sample.items() if not math.isnan(value)}
    ceiling = best_in_process(job.rows, way.precision, way.tokens)
    if way.way == HTTP and ceiling:
        figures["of_ceiling"] = round(sample["rate"] / ceiling, 3)
    job.row(**facts, **figures)


def best_in_process(rows: Sequence[dict[str, float | str]], precision: str, tokens: int) -> float | None:
    """The most texts a second inside this process with such texts; None if that was not measured."""
    rates = [
        float(row["rate"])
        for row in rows
        if (row["way"], row["precision"], row["tokens"]) == (IN_PROCESS, precision, tokens) and "rate" in row
    ]
    return max(rates, default=None)


class _Measuring:
    """Texts, graphs and targets of the ways; what was made once is kept."""

    def __init__(self, job: Job, stack: Stack, load: Load) -> None:
        self._job = job
        self._stack = stack
        self._load = load
        self._models = served_models(job.settings)
        count = FEW_TEXTS if job.settings.short else 512
        self._texts = {SENTENCES: read_sentences(CHECKPOINT / "heldout.tsv", count)}
        self._ceilings: dict[str, Ceiling] = {}

    def texts(self, tokens: int) -> list[str]:
        """Sentences, or texts of one length."""
        if tokens not in self._texts:
            model = self._models[PRECISIONS[0]]
            self._texts[tokens] = exact_texts(model, tokens, _TEXTS_OF_A_LENGTH)
        return self._texts[tokens]

    def why_not(self, way: Way, seconds: float) -> str | None:
        """Why a way is left out, if it is."""
        if way.way == IN_PROCESS and way.at_once * max(way.tokens, 1) > MOST_TOKENS:
            return "more tokens in one run than any group has"
        # wrk counts whole seconds.
        least = max(1.0, seconds) + 0.5
        ceiling = best_in_process(self._job.rows, way.precision, way.tokens)
        if way.way == HTTP and ceiling:
            one_round = way.at_once / ceiling
            if one_round > 2 * least:
                return f"an answer on every connection takes {one_round:.0f} s here"
            least += one_round
        return "no time was left" if self._job.left_s - _SPARE_S < least else None

    def of(self, way: Way, seconds: float) -> Callable[[], Sample]:
        """The measurement."""
        texts = self.texts(way.tokens)
        if way.way == IN_PROCESS:
            if way.precision not in self._ceilings:
                self._ceilings[way.precision] = Ceiling(
                    self._models[way.precision], self._job.settings.device
                )
            return partial(self._ceilings[way.precision].measure, texts, way.at_once, seconds)
        return partial(self._load, self._target(way), texts, way.at_once, seconds)

    def _target(self, way: Way) -> Target:
        if way.way == NULL:
            return self._stack.null(way.workers)
        return self._stack.target(way.precision, way.workers)

"""Throughput and latency over HTTP on the device, beside what the device can do inside one process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial

from loadtest.bench.figures import Sample
from loadtest.bench.gpu import open_gpus
from loadtest.bench.sentences import read_sentences
from loadtest.bench.wrk import Wrk, find_wrk, wrk_version
from loadtest.client import LoadError, NoAnswerError, Target
from loadtest.closed_loop import Load, over_http
from tools.gpu_check.answers import exact_texts
from tools.gpu_check.budgets import compare_budgets, verdict
from tools.gpu_check.ceiling import Ceiling
from tools.gpu_check.grid import HTTP, IN_PROCESS, NULL, SENTENCES, Way, grid, ways
from tools.gpu_check.job import CheckFailed, CheckSkipped, Job
from tools.gpu_check.models import FEW_TEXTS, PRECISIONS, served_models
from tools.gpu_check.pace import Pace, seconds_each
from tools.gpu_check.stack import Stack, running_stack
from tritonflare.paths import CHECKPOINT

_SPARE_S = 8.0
"""For servers to stop."""
_TEXTS_OF_A_LENGTH = 16


def bench(job: Job) -> str:
    """Measure what there is time for; a way that is left out is said."""
    on_gpu = job.settings.device == "cuda"
    loads = grid(job.settings.short, len(os.sched_getaffinity(0)), on_gpu)
    load, generator = load_generator(job.settings.short)
    planned = list(ways(loads))
    job.figures(load_generator=generator, planned=len(planned))
    with running_stack(job, loads.workers, budgets=True) as stack, open_gpus() as gpus:
        measure = _Measuring(job, stack, load)
        pace = Pace(measure.sentence_tokens())
        for place, way in enumerate(planned):
            left_s = job.left_s - _SPARE_S
            seconds = seconds_each(left_s, len(planned) - place, loads.most_s)
            job.steps.step(str(way))
            if why := pace.why_not(way, seconds, left_s):
                job.leave_out(f"{way}: {why}")
                continue
            taken = measure.of(way, seconds)
            pace.learn(way, _measure(job, way, taken if gpus is None else partial(gpus.around, taken)))
    if not job.rows:
        raise CheckSkipped("There was no time to measure anything.")
    if failed := [row["way"] for row in job.rows if row.get("error")]:
        raise CheckFailed(f"{len(failed)} of {len(job.rows)} measurements failed.")
    compared = compare_budgets(job.rows)
    # On a CPU the encoder groups texts in its own way, whatever the budget.
    said = verdict(compared) if on_gpu else ""
    job.figures(budgets=compared, best_budget=said)
    return f"{len(job.rows)} of {len(planned)} measurements were taken. {said}".rstrip()


def load_generator(short: bool = False) -> tuple[Load, str]:
    """The load generator and its name: wrk where it runs, which leaves more of the cores to the servers.

    It counts whole seconds, and a short run has only parts of one for each way.
    """
    program = find_wrk()
    version = "unknown" if program is None else wrk_version(program)
    # One that was packed elsewhere may not run here.
    if short or program is None or version == "unknown":
        return over_http, "our own asyncio client"
    return Wrk(program), f"wrk {version}"


def _measure(job: Job, way: Way, measure: Callable[[], Sample]) -> float:
    """Take one measurement; returns the texts a second, 0 if it failed."""
    facts = {"way": way.way, "precision": way.precision, "tokens": way.tokens}
    facts |= {"at_once": way.at_once, "workers": way.workers}
    if way.budget is not None:
        facts |= {"budget": str(way.budget), "round": way.round}
    try:
        sample = measure()
    except NoAnswerError:
        job.leave_out(f"{way}: no answer came in time")
        return 0.0
    except LoadError as error:
        job.row(**facts, error=str(error))
        return 0.0
    figures = {key: float(f"{value:.4g}") for key, value in sample.items() if not math.isnan(value)}
    ceiling = best_in_process(job.rows, way.precision, way.tokens)
    # On a CPU a run in this process has one core, and is no ceiling.
    if way.way == HTTP and ceiling and job.settings.device == "cuda":
        figures["of_ceiling"] = round(sample["rate"] / ceiling, 3)
    job.row(**facts, **figures)
    return sample["rate"]


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

    def sentence_tokens(self) -> float:
        """Tokens of a sentence, on average."""
        return self._ceiling(PRECISIONS[0]).mean_tokens(self._texts[SENTENCES])

    def of(self, way: Way, seconds: float) -> Callable[[], Sample]:
        """The measurement."""
        texts = self.texts(way.tokens)
        if way.way == IN_PROCESS:
            return partial(self._ceiling(way.precision).measure, texts, way.at_once, seconds)
        return partial(self._load, self._target(way), texts, way.at_once, seconds)

    def _ceiling(self, precision: str) -> Ceiling:
        if precision not in self._ceilings:
            self._ceilings[precision] = Ceiling(self._models[precision], self._job.settings.device)
        return self._ceilings[precision]

    def _target(self, way: Way) -> Target:
        if way.way == NULL:
            return self._stack.null(way.workers)
        return self._stack.target(way.precision, way.workers, way.budget)

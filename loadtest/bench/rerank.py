"""What reranking costs: many contexts in one request, the same one by one, and the model in-process."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import uvloop
from tokenizers import Tokenizer

from loadtest.bench.figures import Sample, fit_line
from loadtest.bench.rounds import Result, Way
from loadtest.bench.sentences import ExactTexts
from loadtest.client import LoadError, Target
from loadtest.closed_loop import send

BOUND = 1e-4
"""Largest difference of a score, alone, beside others and in-process."""
_QUERY_TOKENS = 12
_GROUP = 8
_SECTION = "rerank"
TOGETHER, APART = "one request", "a request for each context"
LOOP, GROUPS = "in-process, one pair after the other", "in-process, groups of like length, all cores"

Scores = dict[int, float]
"""By the context's place."""


@dataclass(frozen=True)
class Question:
    """A query, and contexts in no order of length."""

    query: str
    contexts: Sequence[str]

    def first(self, count: int) -> Question:
        """The same query with fewer contexts."""
        return Question(self.query, self.contexts[:count])

    def payload(self) -> dict[str, Any]:
        """The body of a request."""
        return {"query": self.query, "contexts": [{"text": context} for context in self.contexts]}


def make_question(tokenizer: Path, words: Sequence[str], contexts: int, tokens: int) -> Question:
    """A query, and ``contexts`` contexts of about ``tokens`` tokens each.

    Args:
        tokenizer: the model's ``tokenizer.json``.
        words: texts to take words from.
        contexts: how many.
        tokens: of a context, special ones included; lengths are spread evenly around it.

    Raises:
        ValueError: this tokenizer does not count words one by one, or ``tokens`` is too small.
    """
    return make_questions(tokenizer, words, 1, contexts, tokens)[0]


def make_questions(
    tokenizer: Path, words: Sequence[str], count: int, contexts: int, tokens: int
) -> list[Question]:
    """As `make_question`, ``count`` different ones whose contexts have the same lengths."""
    exact = ExactTexts(tokenizer, words)
    queries = exact.make(_QUERY_TOKENS, count)
    return list(map(Question, queries, exact.about(tokens, contexts, count)))


class PairsInProcess:
    """ONNX Runtime on the very file that is served, tokenization and the sigmoid included.

    Args:
        model: ``model.onnx``; reads ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``.
        tokenizer: ``tokenizer.json``.
        max_tokens: the model's limit, special tokens included.
    """

    def __init__(self, model: Path, tokenizer: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, strategy="only_second")
        self._shared = _session(model, 0)
        cores = len(os.sched_getaffinity(0))
        self._sessions = [_session(model, 1) for _ in range(cores)]
        self._pool = ThreadPoolExecutor(cores)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def loop(self, question: Question) -> Scores:
        """One pair after the other, each on all cores: what a script does without further thought."""
        found: Scores = {}
        for place, context in enumerate(question.contexts):
            (found[place],) = _scores(self._shared, [self._tokenizer.encode(question.query, context)])
        return found

    def groups(self, question: Question) -> Scores:
        """Pairs of like length in runs of 8, a core for each run: the best that a process can do."""
        pairs = [(question.query, context) for context in question.contexts]
        rows = self._tokenizer.encode_batch(pairs)
        order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids), reverse=True)
        parts = [order[first : first + _GROUP] for first in range(0, len(order), _GROUP)]
        # Each thread takes the next part with a session that is free.
        free = list(self._sessions)

        def work(part: Sequence[int]) -> list[float]:
            session = free.pop()
            try:
                return _scores(session, [rows[place] for place in part])
            finally:
                free.append(session)

        found: Scores = {}
        for part, scores in zip(parts, self._pool.map(work, parts), strict=True):
            found |= zip(part, scores, strict=True)
        return found


def _session(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, ["CPUExecutionProvider"])


def _scores(session: ort.InferenceSession, rows: Sequence[Any]) -> list[float]:
    parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    tensors: dict[str, npt.NDArray[np.int64]] = {}
    longest = max(len(row.ids) for row in rows)
    for name in (given.name for given in session.get_inputs()):
        tensors[name] = np.zeros((len(rows), longest), np.int64)
        for line, row in enumerate(rows):
            tensors[name][line, : len(row.ids)] = getattr(row, parts[name])
    (logits,) = session.run(["logits"], tensors)
    return [float(score) for score in 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))]


def ask(target: Target, question: Question) -> Scores:
    """Rerank in one request.

    Raises:
        LoadError: the answer was not 200, or not a score for each context.
    """
    return ask_each(target, [question])[0]


def ask_each(target: Target, questions: Sequence[Question]) -> list[Scores]:
    """Rerank in a request for each question, one after the other on one connection.

    Raises:
        LoadError: see `ask`.
    """
    bodies: list[bytes] = []
    requests = [target.request_of(question.payload()) for question in questions]
    walks = [range(len(requests))]
    uvloop.run(
        send(target, requests, walks, lambda _place, _latency, body: bodies.append(body), float("inf"))
    )
    return [
        read_answer(body, len(question.contexts)) for body, question in zip(bodies, questions, strict=True)
    ]


def ask_alone(target: Target, question: Question) -> Scores:
    """The scores of all contexts, each in a request of its own.

    Raises:
        LoadError: see `ask`.
    """
    answers = ask_each(target, [Question(question.query, [context]) for context in question.contexts])
    return {place: scores[0] for place, scores in enumerate(answers)}


def read_answer(body: bytes, contexts: int) -> Scores:
    """The scores of our answer to a question with so many contexts.

    Raises:
        LoadError: it does not hold a score for each of them.
    """
    response = json.loads(body)["result"]["response"]
    scores = {entry["id"]: entry["score"] for entry in response}
    if set(scores) != set(range(contexts)):
        raise LoadError("the answer does not hold a score for each context")
    return scores


class Differences:
    """Compares the scores of every measurement with those of each context alone."""

    def __init__(self, alone: Scores) -> None:
        self._alone = alone
        self.largest = 0.0
        self.answers = 0

    def see(self, scores: Scores) -> None:
        """Compare one answer; a score that is no number differs without bound."""
        self.answers += 1
        for place, score in scores.items():
            difference = abs(score - self._alone[place])
            self.largest = max(self.largest, math.inf if math.isnan(difference) else difference)


def rerank_ways(
    target: Target,
    local: PairsInProcess,
    question: Question,
    counts: Sequence[int],
    seconds: float,
    differences: Differences,
) -> Iterator[Way]:
    """One request of each number of contexts; then the whole question in the other ways.

    Args:
        target: the model's run route.
        local: the same model in this process.
        question: with as many contexts as the ways other than one request are measured with, or more.
        counts: numbers of contexts; the other ways are measured with the middle one.
        seconds: how long each way is repeated, at least once.
        differences: compares each answer.
    """

    def way(name: str, pairs: int, answer: Callable[[], Scores]) -> Way:
        measure = partial(_repeat, answer, pairs, seconds, differences)
        return Way(_SECTION, name, measure, {"pairs": pairs})

    for count in counts:
        yield way(TOGETHER, count, partial(ask, target, question.first(count)))
    count = middle(counts)
    whole = question.first(count)
    yield way(APART, count, partial(ask_alone, target, whole))
    yield way(LOOP, count, partial(local.loop, whole))
    yield way(GROUPS, count, partial(local.groups, whole))


def middle(counts: Sequence[int]) -> int:
    """The number of contexts that all ways are compared at: 50 if it is among them."""
    return 50 if 50 in counts else sorted(counts)[len(counts) // 2]


def _repeat(answer: Callable[[], Scores], pairs: int, seconds: float, differences: Differences) -> Sample:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        scores = answer()
        times.append(time.perf_counter() - begin)
        differences.see(scores)
    median = statistics.median(times)
    return {"ms": 1000 * median, "rate": pairs / median}


def summary(results: Sequence[Result], counts: Sequence[int]) -> dict[str, float]:
    """Ratios of times at the middle count, each taken round by round, and the line of ms against pairs."""
    at = {(result.name, result.facts["pairs"]): result for result in results}
    count = middle(counts)
    together = at[TOGETHER, count]
    found = {f"ms of {count} contexts in one request": together.medians["ms"]}
    for name in (APART, LOOP, GROUPS):
        ratios = [
            ours["ms"] / theirs["ms"]
            for ours, theirs in zip(together.rounds, at[name, count].rounds, strict=True)
        ]
        found[f"time of one request against: {name}"] = statistics.median(ratios)
    if len(set(counts)) > 1:
        times = [at[TOGETHER, each].medians["ms"] for each in counts]
        slope, intercept, r2 = fit_line(counts, times)
        found |= {"ms a context": slope, "ms at 0 contexts": intercept, "R² of ms against contexts": r2}
    return found


def rows(results: Sequence[Result]) -> list[list[str]]:
    """Name, pairs, ms and pairs/s of each way, medians over rounds."""
    return [
        [
            result.name,
            str(result.facts["pairs"]),
            f"{result.medians['ms']:.1f}",
            f"{result.medians['rate']:.0f}",
        ]
        for result in results
    ]

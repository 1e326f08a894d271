"""Whether what is served on the device is right, alone and beside others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import uvloop

from export.artefact import Logits
from export.evaluation.gate import DEFAULT_LIMITS
from export.evaluation.metrics import Answers, agreement, answers
from export.spec import PROBLEM_TYPES
from loadtest.bench.invariance import Invariance
from loadtest.bench.sentences import ExactTexts, read_sentences
from loadtest.checks import Scores
from loadtest.closed_loop import classify_sequentially
from tools.gpu_check.job import CheckFailed, Job
from tools.gpu_check.models import FEW_TEXTS, PRECISIONS, Model, served_models
from tools.gpu_check.stack import running_stack
from tritonflare.paths import CHECKPOINT

_GOLDEN = Path(__file__).parents[2] / "loadtest" / "golden_logits.jsonl"
_SINGLE_LABEL = PROBLEM_TYPES[0]
_LENGTHS = (16, 64, 128, 256, 512)


def golden(job: Job) -> str:
    """Compare scores over HTTP with those that ``transformers`` and PyTorch compute in FP32."""
    texts, logits = read_golden(FEW_TEXTS if job.settings.short else None)
    wanted = answers(logits, _SINGLE_LABEL)
    failed = []
    with running_stack(job) as stack:
        for precision in PRECISIONS:
            job.steps.step(f"asking for {len(texts)} golden answers in {precision}")
            found = uvloop.run(classify_sequentially(stack.target(precision), texts))
            same = agreement(_as_answers(found), wanted)
            limits = DEFAULT_LIMITS[precision]
            passed = same.share >= limits.agreement and same.p99_shift <= limits.p99_shift
            job.row(
                precision=precision,
                texts=same.texts,
                same_label=same.same,
                largest_shift=same.largest_shift,
                p99_shift=same.p99_shift,
                p99_limit=limits.p99_shift,
                passed=passed,
            )
            if not passed:
                failed.append(f"{precision.upper()}: {same.same} of {same.texts} labels")
    if failed:
        raise CheckFailed(f"The answers are not PyTorch's: {'; '.join(failed)}.")
    return f"{len(texts)} texts have PyTorch's answers in both precisions."


def read_golden(limit: int | None) -> tuple[list[str], Logits]:
    """The first ``limit`` texts, or all, and PyTorch's logits FP32 [texts, labels]."""
    lines = [json.loads(line) for line in _GOLDEN.read_text(encoding="utf-8").splitlines()][:limit]
    return [line["text"] for line in lines], np.array([line["logits"] for line in lines], np.float32)


def _as_answers(found: Sequence[Scores]) -> Answers:
    """Scores in the order of the labels, as the gateway gives them."""
    scores: npt.NDArray[np.float64] = np.array([list(each.values()) for each in found])
    chosen = np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)]
    return Answers(scores, chosen, np.isfinite(scores).all(axis=1))


def invariance(job: Job) -> str:
    """Compare answers under load with those of the same texts alone, over HTTP."""
    short = job.settings.short
    models = served_models(job.settings)
    # A CPU computes long texts for seconds, and answers more of them no differently.
    whole = (8, 64, 256) if job.settings.device == "cuda" else (8, 32)
    connections = (8,) if short else whole
    sentences = 8 if short else 64 if job.settings.device == "cuda" else 16
    texts = mixed_texts(models["fp32"], sentences)
    failed = []
    with running_stack(job) as stack:
        for place, precision in enumerate(PRECISIONS):
            compared = Invariance(texts)
            job.steps.step(f"asking {len(texts)} texts alone in {precision}")
            compared.classify_sequentially(stack.target(precision))
            # What is left, shared out over the precisions and loads to come.
            loads = len(connections) * (len(PRECISIONS) - place)
            seconds = min(0.75 if short else 4.0, max(0.5, (job.left_s - 5) / loads / 2))
            for count in connections:
                compared.compare(stack.target(precision), count, seconds)
            limit = DEFAULT_LIMITS[precision].neighbours
            job.row(
                precision=precision,
                answers=compared.answers,
                connections=list(connections),
                largest=compared.largest,
                limit=limit,
                passed=compared.largest <= limit,
            )
            if compared.largest > limit:
                failed.append(f"{precision.upper()} by {compared.largest:.1e}, allowed {limit:g}")
    if failed:
        raise CheckFailed(f"Neighbours move a score: {'; '.join(failed)}.")
    return f"{sum(row['answers'] for row in job.rows):,} answers under load are those of the texts alone."


def mixed_texts(model: Model, sentences: int) -> list[str]:
    """Held-out sentences, and texts of all lengths up to what the model reads, in turn; these are fewer."""
    plain = read_sentences(CHECKPOINT / "heldout.tsv", sentences)
    made = [text for length in _LENGTHS for text in exact_texts(model, length, max(1, sentences // 16))]
    mixed = [text for pair in zip(made, plain, strict=False) for text in pair]
    return mixed + made[len(plain) :] + plain[len(made) :]


def exact_texts(model: Model, tokens: int, count: int) -> list[str]:
    """Different texts of exactly so many tokens."""
    return ExactTexts(model.tokenizer, read_sentences(CHECKPOINT / "heldout.tsv")).make(tokens, count)

"""The report's tables of a reranker, of neighbours and of speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kendalltau, rankdata
from tokenizers import Tokenizer

from export.evaluation.data import MULTI_LABEL, Examples
from export.evaluation.evaluate import Evaluation, evaluate
from export.evaluation.gate import judge
from export.evaluation.report import write_report
from export.evaluation.runner import Candidate
from export.evaluation.settings import TimingSettings
from tests.export.test_evaluation_report_page import Page
from tests.support.small_checkpoints import write_checkpoint

QUERIES, EACH = 30, 6
PAIRS = QUERIES * EACH
MOVED = {"fp32": 0.0, "int8": 0.004}
"""By how much a logit moves beside others."""


class Given:
    """A runner that knows the logit of each pair by its token ids; neighbours move it by a little."""

    def __init__(self, logits: dict[tuple[int, ...], float], moved: float) -> None:
        self.logits, self.moved = logits, moved

    def run(self, ids: Any, mask: Any, types: Any = None) -> Any:
        rows = [tuple(row[kept > 0].tolist()) for row, kept in zip(ids, mask, strict=True)]
        moved = self.moved * (len(rows) > 1)
        return np.array([[self.logits.get(row, 0.0) + moved] for row in rows], np.float32)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, dict[str, Any], Any]:
    """A reranker and an artefact with some other orders; their logits; which pairs are relevant."""
    source = write_checkpoint(tmp_path_factory.mktemp("t") / "m", labels=1, family="bert")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    rng = np.random.default_rng(5)
    letters = "abcdefghijklmnopqrstuvwxyz"
    queries = [f"{letters[i // 26]} {letters[i % 26]}" for i in range(QUERIES) for _ in range(EACH)]
    texts = [f"{letters[i % 26]} {letters[i // 26]} {letters[i % EACH]}" for i in range(PAIRS)]
    relevant = np.arange(PAIRS) % EACH == 2
    logits = {"fp32": (1.2 * relevant + rng.normal(0, 1, PAIRS)).astype(np.float32)}
    logits["int8"] = (logits["fp32"] + rng.normal(0, 0.4, PAIRS)).astype(np.float32)
    ids = [tuple(each.ids) for each in tokenizer.encode_batch(texts)]
    assert len(set(ids)) == PAIRS
    artefacts = {}
    for name, size in (("fp32", 4_260_000), ("int8", 1_140_000)):
        runner = Given(dict(zip(ids, logits[name].tolist(), strict=True)), MOVED[name])
        artefacts[name] = Candidate(name, size, lambda threads, runner=runner: runner)  # type: ignore[misc]
    found = evaluate(
        artefacts,
        Examples(tuple(texts), relevant[:, None], "pairs.csv", queries=tuple(queries)),
        tokenizer,
        labels=("relevance",),
        problem_type=MULTI_LABEL,
        max_tokens=64,
        timing=TimingSettings(rounds=2, seconds=0.02, loads=1),
    )
    return found, logits, relevant


@pytest.fixture(scope="module")
def written(judged: tuple[Evaluation, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(judged[0], judge(judged[0]), folder, {"name": "@cf/acme/order"}, "int8")
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def test_the_answers_of_a_reranker(judged: tuple[Evaluation, dict[str, Any], Any], page: Page) -> None:
    _, logits, relevant = judged
    head, *rows = page.tables["Answers"]
    assert [row[0] for row in rows] == ["fp32", "int8"]
    first = logits["fp32"].reshape(QUERIES, EACH)
    for row, size in zip(rows, ("4.3", "1.1"), strict=True):
        cells = dict(zip(head, row, strict=True))
        mine = logits[row[0]].reshape(QUERIES, EACH)
        taus = [kendalltau(one, other).statistic for one, other in zip(mine, first, strict=True)]
        places = rankdata(-mine, axis=1)[relevant.reshape(QUERIES, EACH)]
        moved = np.abs(expit(logits[row[0]] + MOVED[row[0]]) - expit(logits["fp32"]))
        assert cells == {
            "artefact": row[0],
            "MB": size,
            "MRR@10": f"{np.mean(1 / places):.4f}",
            "Kendall's tau (lowest)": f"{np.mean(taus):.4f} ({min(taus):.2f})",
            "first text as fp32": f"{100 * np.mean(mine.argmax(axis=1) == first.argmax(axis=1)):.2f} %",
            "largest Δp": f"{moved.max():.1e}",
            "99th percentile of Δp": f"{np.quantile(moved, 0.99):.1e}",
        }
    assert rows[0][2:5] != rows[1][2:5]
    chance = np.mean([1 / place for place in range(1, EACH + 1)])
    assert (
        f"over the {QUERIES} queries with a relevant text; a random order would give {chance:.4f}."
        in page.text
    )


def test_neighbours_by_how_much_they_move_a_score(
    judged: tuple[Evaluation, dict[str, Any], Any], page: Page
) -> None:
    head, *rows = page.tables["Neighbours"]
    assert head == ["batches", "number", "pairs in them", "fp32", "int8"]
    asked = np.append(judged[1]["int8"], 0)
    largest = np.abs(expit(asked + MOVED["int8"]) - expit(asked)).max()
    assert {row[3] for row in rows} == {"0.0e+00"}
    # The text of the greatest length has the logit 0, where a score moves most.
    (row,) = [row for row in rows if row[0].startswith("beside a text of the greatest length")]
    assert row[4] == f"{largest:.1e}"
    assert all(0 < float(row[4]) <= float(f"{largest:.1e}") for row in rows)


def test_the_tables_of_speed_show_what_was_measured(
    judged: tuple[Evaluation, dict[str, Any], Any], page: Page
) -> None:
    shown = page.tables["Speed"]
    for name, found in judged[0].measurements.items():
        speed = found.speed
        assert speed is not None
        assert [
            name,
            f"{speed.load_ms:.0f}",
            f"{speed.alone_ms:.2f}",
            f"{speed.alone_p99_ms:.2f}",
            f"{speed.alone_per_second:.0f} ({speed.alone_ratio:.2f} ×)",
            f"{speed.grouped_per_second:.0f} ({speed.grouped_ratio:.2f} ×)",
        ] in shown
        assert [name, *(f"{ms:.1f}" for ms in speed.by_length.values())] in shown

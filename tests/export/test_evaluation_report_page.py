"""The HTML report's figures of quality, gate and pictures, computed once more from the answers themselves.

By scikit-learn and scipy. test_evaluation_report_tables.py has the tables of a reranker, of neighbours and of
speed; times cannot be computed again, so there the table is compared with what was measured.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from tokenizers import Tokenizer

from export.evaluation import plots
from export.evaluation.data import MULTI_LABEL, Examples
from export.evaluation.doubts import doubts
from export.evaluation.evaluate import Evaluation, evaluate
from export.evaluation.gate import judge
from export.evaluation.metrics import CALIBRATION_BINS, Answers, answers
from export.evaluation.report import write_figures, write_report
from export.evaluation.runner import Candidate
from tests.support.small_checkpoints import write_checkpoint

SINGLE = "single_label_classification"
LABELS = ("bad", "so_so", "good|great", "never")
TEXTS = 600
SIZES = {"fp32": 4_260_000, "int8": 1_140_000}
DIGEST = "01234567"
HOSTILE = (
    '![x](http://evil.test/a.png) [y](javascript:alert(1)) <img src="http://evil.test/b.png">',
    "<script>alert(1)</script> | a *b* _c_ `d` \\ ~e~ &amp; # f",
)


class Table(list[list[str]]):
    """Rows of cells, the head first."""


class Page(HTMLParser):
    """The tables of a page, by the heading above them, and what it would load."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tables: dict[str, Table] = {}
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._heading, self._cell = "", ""
        self._rows: Table = Table()
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag in ("h1", "h2", "h3"):
            self._heading = ""
        if tag == "table":
            self._rows = self.tables.setdefault(self._heading, Table())
        if tag == "tr":
            self._rows.append([])
        self._cell = ""

    def handle_data(self, data: str) -> None:
        self._cell += data
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2", "h3"):
            self._heading = self._cell
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell)


class Given:
    """A runner that knows the answers: the logits of a text are in the table of its first token ids."""

    def __init__(self, logits: dict[tuple[int, ...], Any]) -> None:
        self.logits = logits

    def run(self, ids: Any, mask: Any, types: Any = None) -> Any:
        rows = [tuple(row[kept > 0].tolist()) for row, kept in zip(ids, mask, strict=True)]
        blank = np.zeros(len(LABELS), np.float32)
        return np.stack([self.logits.get(row, blank) for row in rows]).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    found = Tokenizer.from_file(str(write_checkpoint(tmp_path_factory.mktemp("t") / "m") / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(64)
    return found


@pytest.fixture(scope="module", params=[SINGLE, MULTI_LABEL])
def evaluation(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Evaluation:
    """A model that is right more often than not, and an artefact that differs from it a little."""
    rng = np.random.default_rng(3)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [" ".join(letters[(i // 26**k) % 26] for k in range(3)) for i in range(TEXTS)]
    texts[:2] = HOSTILE
    truth = rng.choice(3, TEXTS, p=[0.5, 0.2, 0.3])
    targets = np.eye(len(LABELS), dtype=bool)[truth]
    if request.param == MULTI_LABEL:
        targets |= rng.random(targets.shape) < 0.15
    logits = {"fp32": 2.5 * targets - 1 + rng.normal(0, 1.4, targets.shape)}
    logits["fp32"][:, 3] -= 0.8
    logits["fp32"][:2] = np.where(targets[:2], -9.0, 5.0)  # wrong, and sure of it
    logits["int8"] = logits["fp32"] + rng.normal(0, 0.15, targets.shape)
    ids = [tuple(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    tables = {
        name: Given(dict(zip(ids, values.astype(np.float32), strict=True))) for name, values in logits.items()
    }
    assert len(set(ids)) == TEXTS
    artefacts = {
        name: Candidate(name, SIZES[name], lambda threads, table=table: table)  # type: ignore[misc]
        for name, table in tables.items()
    }
    return evaluate(
        artefacts,
        Examples(tuple(texts), targets, "reviews.csv"),
        tokenizer,
        labels=LABELS,
        problem_type=request.param,
        max_tokens=64,
    )


@pytest.fixture(scope="module")
def written(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    found = doubts(evaluation, "int8")
    write_report(evaluation, judge(evaluation), folder, {"name": "@cf/acme/mood"}, "int8", found)
    write_figures(folder, DIGEST, version=3)
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def of(evaluation: Evaluation, name: str = "int8") -> tuple[Answers, Any]:
    return evaluation.measurements[name].answers, evaluation.examples.targets


def decisions(evaluation: Evaluation, name: str) -> tuple[Any, Any]:
    """Confidence and rightness, of texts or of each label of a text."""
    given, targets = of(evaluation, name)
    if evaluation.problem_type == MULTI_LABEL:
        return np.maximum(given.scores, 1 - given.scores).ravel(), (given.chosen == targets).ravel()
    return given.scores.max(axis=1), given.scores.argmax(axis=1) == targets.argmax(axis=1)


def test_accuracy_agreement_and_calibration_error(evaluation: Evaluation, page: Page) -> None:
    head, *rows = page.tables["Answers"]
    assert [row[0] for row in rows] == ["fp32", "int8"]
    _, targets = of(evaluation)
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        given = of(evaluation, row[0])[0]
        share = sk.accuracy_score(targets, given.chosen)
        right = int(sk.accuracy_score(targets, given.chosen, normalize=False))
        low, high = binomtest(right, TEXTS).proportion_ci(method="wilson")
        assert cells["accuracy (95 % interval)"] == f"{percent(share)} ({100 * low:.1f}–{100 * high:.1f})"
        assert cells["MB"] == {"fp32": "4.3", "int8": "1.1"}[row[0]]
        assert cells["agrees with fp32"] == percent(
            sk.accuracy_score(of(evaluation, "fp32")[0].chosen, given.chosen)
        )
        confidence, was_right = decisions(evaluation, row[0])
        place = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
        shares, means = calibration_curve(was_right, confidence, n_bins=CALIBRATION_BINS)
        weights = np.bincount(place, minlength=CALIBRATION_BINS)
        error = np.abs(shares - means) @ weights[weights > 0] / len(was_right)
        assert cells["calibration error"] == f"{error:.4f}"
        moved = np.abs(given.scores - of(evaluation, "fp32")[0].scores).max(axis=1)
        assert cells["largest Δp"] == f"{moved.max():.1e}"
        assert cells["99th percentile of Δp"] == f"{np.quantile(moved, 0.99):.1e}"


def test_precision_recall_and_f1_of_each_label(evaluation: Evaluation, page: Page) -> None:
    given, targets = of(evaluation)
    wanted = sk.precision_recall_fscore_support(targets, given.chosen, zero_division=0)
    counts = given.chosen.sum(axis=0)
    expected = [
        [label, *map(percent, three), str(int(support)), str(count)]
        for label, *three, support, count in zip(LABELS, *wanted, counts, strict=True)
    ]
    head, *rows = page.tables["Labels"]
    assert head == ["label", "precision", "recall", "F1", "texts", "answers"]
    assert rows == expected


def test_the_mean_f1_the_loss_and_the_commonest_answer(evaluation: Evaluation, page: Page) -> None:
    given, targets = of(evaluation)
    if evaluation.problem_type == MULTI_LABEL:
        f1 = sk.f1_score(targets, given.chosen, average="macro", zero_division=0)
        loss = np.mean([sk.log_loss(targets[:, i], given.scores[:, i]) for i in range(len(LABELS))])
        _, sets = np.unique(targets, axis=0, return_counts=True)
        majority = sets.max() / TEXTS
    else:
        # Labels as numbers: only those that occur count.
        f1 = sk.f1_score(
            targets.argmax(axis=1), given.chosen.argmax(axis=1), average="macro", zero_division=0
        )
        loss = sk.log_loss(targets.argmax(axis=1), given.scores, labels=range(len(LABELS)))
        majority = targets.mean(axis=0).max()
    assert f"The mean F1 of the labels is {percent(f1)}, the mean loss {loss:.4f}." in page.text
    assert f"would be right for {percent(majority)} at best" in page.text


def test_the_confusion_matrix(evaluation: Evaluation, page: Page) -> None:
    if evaluation.problem_type == MULTI_LABEL:
        assert "Confusion matrix" not in page.tables
        return
    given, targets = of(evaluation)
    matrix = sk.confusion_matrix(
        targets.argmax(axis=1), given.chosen.argmax(axis=1), labels=range(len(LABELS))
    )
    head, *rows = page.tables["Confusion matrix"]
    assert head == ["label", *LABELS]
    assert rows == [[label, *map(str, counts)] for label, counts in zip(LABELS, matrix, strict=True)]


def test_the_table_of_calibration(evaluation: Evaluation, page: Page) -> None:
    confidence, right = decisions(evaluation, "int8")
    shares, means = calibration_curve(right, confidence, n_bins=CALIBRATION_BINS)
    _, *rows = page.tables["Calibration"]
    assert [row[1:] for row in rows] == [[percent(m), percent(s)] for m, s in zip(means, shares, strict=True)]
    assert sum(int(row[0]) for row in rows) == len(right)


def test_the_twenty_worst_errors_by_loss(evaluation: Evaluation, page: Page) -> None:
    given, targets = of(evaluation)
    losses = []
    for scores, wanted, chosen in zip(given.scores, targets, given.chosen, strict=True):
        if (wanted == chosen).all():
            losses.append(-1.0)
        elif evaluation.problem_type == MULTI_LABEL:
            losses.append(float(sk.log_loss(wanted, scores, labels=[False, True])))
        else:
            losses.append(float(sk.log_loss([wanted.argmax()], [scores], labels=range(len(LABELS)))))
    worst = sorted(range(TEXTS), key=lambda i: -losses[i])[:20]

    def names(row: Any) -> str:
        return ", ".join(label for label, is_one in zip(LABELS, row, strict=True) if is_one) or "none"

    _, *rows = page.tables["Worst errors"]
    assert rows == [
        [evaluation.examples.texts[i], names(targets[i]), names(given.chosen[i]), f"{losses[i]:.4f}"]
        for i in worst
    ]
    assert {HOSTILE[0], HOSTILE[1]} <= {row[0] for row in rows}


def test_the_gate(evaluation: Evaluation, page: Page) -> None:
    _, targets = of(evaluation)
    expected = of(evaluation, "fp32")[0].chosen
    rows = []
    for name, (lost, alike) in {"fp32": (0.1, 99.9), "int8": (0.5, 98.5)}.items():
        chosen = of(evaluation, name)[0].chosen
        accuracy = 100 * sk.accuracy_score(targets, chosen)
        change = accuracy - 100 * sk.accuracy_score(targets, expected)
        same = 100 * sk.accuracy_score(expected, chosen)
        flipped = TEXTS - int(sk.accuracy_score(expected, chosen, normalize=False))
        rows += [
            [name, f"0 of {TEXTS} texts without finite scores", "none", "yes"],
            [
                name,
                f"accuracy {accuracy:.2f} %, {change:+.2f} points against fp32",
                f"at most {lost} points less",
                "yes" if change >= -lost else "no",
            ],
            [
                name,
                f"agreement {same:.2f} % with fp32, {flipped} of {TEXTS} flipped",
                f"at least {alike} %",
                "yes" if same >= alike else "no",
            ],
            [name, "neighbours move a score by 0.0e+00", "at most 0.0001", "yes"],
            [name, "0 labels changed by neighbours", "none", "yes"],
        ]
    assert page.tables["Gate"][1:] == rows
    assert "no" in {row[3] for row in rows}


def test_the_pictures(evaluation: Evaluation, written: Path) -> None:
    document = json.loads((written / "report.json").read_text(encoding="utf-8"))
    (axes,) = plots._calibration(document).axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert set(lines) == {"perfect", "fp32", "int8"}
    for name in ("fp32", "int8"):
        confidence, right = decisions(evaluation, name)
        shares, means = calibration_curve(right, confidence, n_bins=CALIBRATION_BINS)
        assert np.asarray(lines[name].get_xdata()) == pytest.approx(means)
        assert np.asarray(lines[name].get_ydata()) == pytest.approx(shares)
    (axes,) = plots._shift_histogram(document).axes
    (steps,) = axes.patches
    moved = np.abs(of(evaluation)[0].scores - of(evaluation, "fp32")[0].scores).max(axis=1)
    counts, edges, _ = steps.get_data()  # type: ignore[attr-defined]
    assert (edges[0], edges[-1]) == (1e-7, 1)
    inside = [((moved >= low) & (moved < high)).sum() for low, high in pairwise(edges)]
    assert list(counts) == inside
    assert sum(counts) == TEXTS


# --- the page ---------------------------------------------------------------------------------------


def test_the_page_needs_no_other_file_and_runs_nothing(written: Path, page: Page) -> None:
    assert page.elements.count("img") == 2  # the shift of scores, and calibration
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "a", "iframe", "object"} & set(page.elements)
    content = (written / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in content
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", content)
    assert "<title>Export report of @cf/acme/mood</title>" in content


def test_the_page_for_callers_has_the_figures_and_not_one_text(evaluation: Evaluation, written: Path) -> None:
    full = Page((written / "report.html").read_text(encoding="utf-8"))
    figures = Page((written / f"figures-{DIGEST}.html").read_text(encoding="utf-8"))
    for heading in ("Answers", "Labels", "Calibration", "Gate", "Neighbours"):
        assert figures.tables[heading] == full.tables[heading]
    assert ["version", "3"] in figures.tables["Export report"]
    assert "Worst errors" not in figures.tables
    assert any("flipped" in heading.casefold() for heading in full.tables)
    assert figures.elements.count("img") == 2
    for text in evaluation.examples.texts:
        assert text not in figures.text
        assert json.dumps(text) not in figures.text


def test_a_long_text_is_shortened_on_the_page_and_whole_in_the_json(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    texts = ("x" * 5000, *evaluation.examples.texts[1:])
    long = dataclasses.replace(evaluation, examples=dataclasses.replace(evaluation.examples, texts=texts))
    write_report(long, judge(long), tmp_path, {"name": "mood"}, "int8")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "x" * 499 + "…" in page
    assert "x" * 501 not in page
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert any(error["text"] == texts[0] for error in document["artefacts"]["int8"]["quality"]["errors"])


def test_texts_without_an_answer_count_as_errors(evaluation: Evaluation) -> None:
    from export.evaluation.classification import quality

    logits = np.zeros((2, len(LABELS)), np.float32)
    logits[0, 1] = 3
    logits[1] = np.nan
    targets = np.eye(len(LABELS), dtype=bool)[[1, 0]]
    found = quality(answers(logits, evaluation.problem_type), targets, evaluation.problem_type)
    assert found.worst == (1,)
    assert math.isfinite(found.log_loss)
    assert found.labels[0].recall == 0


def test_pages_for_callers_of_the_last_publications_stay_and_what_a_killed_export_left_goes(
    written: Path, tmp_path: Path
) -> None:
    for file in written.iterdir():
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / f".figures-{'e' * 8}.html.part").touch()
    for number in range(12):
        file = write_figures(tmp_path, f"{number:x}" * 8, version=number)
        os.utime(file, (10**9 + number, 10**9 + number))
    os.utime(tmp_path / f"figures-{DIGEST}.html", (10**9 - 1, 10**9 - 1))
    last = write_figures(tmp_path, "c" * 8, version=13)
    kept = {file.name for file in tmp_path.glob("*figures-*")}
    assert kept == {f"figures-{letter * 8}.html" for letter in "3456789abc"}
    assert last.name in kept
    assert not list(tmp_path.glob(".figures*"))

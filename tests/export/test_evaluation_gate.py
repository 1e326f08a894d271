"""evaluate → judge → report on stand-ins whose answers are known."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from export.errors import VerificationError
from export.evaluation.data import MULTI_LABEL, Examples
from export.evaluation.evaluate import Evaluation, Silent, evaluate
from export.evaluation.gate import DEFAULT_LIMITS, judge, require
from export.evaluation.host import describe_host
from export.evaluation.invariance import InvarianceSettings
from export.evaluation.report import as_document, write_report
from export.evaluation.report_text import as_markdown
from export.evaluation.runner import Candidate
from export.evaluation.settings import TimingSettings
from tests.support.small_checkpoints import write_checkpoint

SINGLE = "single_label_classification"
TEXTS = 1000
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def texts() -> tuple[str, ...]:
    """Different texts of two to five letters, every one its own token."""
    return tuple(" ".join(LETTERS[(i // 26**k) % 26] for k in range(2 + i % 4)) for i in range(TEXTS))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = write_checkpoint(tmp_path_factory.mktemp("tokens") / "model")
    found = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(16)
    return found


class Stand:
    """Scores a text by a hash of its tokens; every ``flip_every``-th text gets the other label."""

    def __init__(self, flip_every: int = 0, looks_around: bool = False, finite: bool = True) -> None:
        self.flip_every = flip_every
        self.looks_around = looks_around
        self.finite = finite

    def run(self, ids: Any, mask: Any, types: Any = None) -> Any:
        key = (
            ids
            * mask
            * np.array([3, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97])[: ids.shape[1]]
        )
        hashed = key.sum(axis=1)
        sign = np.where(hashed % 2, 1.0, -1.0)
        if self.flip_every:
            sign = np.where(hashed % self.flip_every == 0, -sign, sign)
        if self.looks_around:
            sign = sign * (1 + 0.01 * mask.shape[1])
        logits = np.stack([-sign, sign], axis=1).astype(np.float32)
        if not self.finite:
            logits[hashed % 97 == 0] = np.nan
        return logits


def examples(tokenizer: Tokenizer, labelled: bool = True) -> Examples:
    """Labels that the unspoilt stand-in gets right for all but every eleventh text."""
    if not labelled:
        return Examples(texts(), None, "eval.csv")
    targets = []
    for place, encoding in enumerate(tokenizer.encode_batch(list(texts()))):
        row = np.array([encoding.ids])
        right = Stand().run(row, np.ones_like(row))[0] > 0
        targets.append(~right if place % 11 == 0 else right)
    return Examples(texts(), np.array(targets), "eval.csv")


Measure = Callable[..., Evaluation]


@pytest.fixture
def measure(tokenizer: Tokenizer) -> Measure:
    def _measure(
        candidate: Stand, precision: str = "int8", labelled: bool = True, **options: Any
    ) -> Evaluation:
        stands = {"fp32": ("fp32", Stand()), "it": (precision, candidate)}
        artefacts = {
            name: Candidate(kind, 1_000_000, lambda threads, stand=stand: stand)  # type: ignore[misc]
            for name, (kind, stand) in stands.items()
        }
        settings: dict[str, Any] = {"labels": ("bad", "good"), "problem_type": SINGLE, "max_tokens": 16}
        return evaluate(artefacts, examples(tokenizer, labelled), tokenizer, **(settings | options))

    return _measure


def failed(evaluation: Evaluation, **options: Any) -> set[tuple[str, str]]:
    return {(f.artefact, f.check) for f in judge(evaluation, **options) if not f.passed}


def test_an_artefact_that_answers_like_its_reference_passes(measure: Measure) -> None:
    evaluation = measure(Stand())
    assert failed(evaluation) == set()
    require(evaluation, judge(evaluation))
    found = evaluation.measurements["it"]
    assert found.accuracy is not None
    assert found.accuracy.correct == TEXTS - len(range(0, TEXTS, 11))
    assert found.agreement.same == TEXTS


def test_a_tenth_of_other_labels_fails_accuracy_and_agreement_and_names_the_texts(measure: Measure) -> None:
    evaluation = measure(Stand(flip_every=10))
    assert failed(evaluation) == {("it", "accuracy drop"), ("it", "agreement")}
    flipped = evaluation.measurements["it"].flipped
    with pytest.raises(VerificationError) as caught:
        require(evaluation, judge(evaluation))
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert f"{len(flipped)} of {TEXTS} flipped (allowed: at least 98.5 %)" in message
    assert "points against fp32 (allowed: at most 0.5 points less)" in message
    assert repr(texts()[flipped[0]]) in message
    assert f"… and {len(flipped) - 5} more" in message
    assert "report.json" in message


def test_agreement_is_judged_on_all_texts_at_exactly_the_limit(measure: Measure) -> None:
    evaluation = measure(Stand(flip_every=50))
    share = evaluation.measurements["it"].agreement.share
    limits = dataclasses.replace(DEFAULT_LIMITS["int8"], accuracy_drop=100, agreement=share)
    assert failed(evaluation, limits={**DEFAULT_LIMITS, "int8": limits}) == set()
    limits = dataclasses.replace(limits, agreement=share + 1e-6)
    assert failed(evaluation, limits={**DEFAULT_LIMITS, "int8": limits}) == {("it", "agreement")}


def test_a_drop_of_exactly_the_limit_passes_and_one_text_more_does_not(measure: Measure) -> None:
    evaluation = measure(Stand(flip_every=50))
    found = evaluation.measurements["it"].accuracy
    expected = evaluation.measurements["fp32"].accuracy
    assert found is not None
    assert expected is not None
    lost = expected.correct - found.correct
    assert lost > 0
    limits = dataclasses.replace(DEFAULT_LIMITS["int8"], agreement=0, accuracy_drop=lost / 10)
    assert failed(evaluation, limits={**DEFAULT_LIMITS, "int8": limits}) == set()
    limits = dataclasses.replace(limits, accuracy_drop=(lost - 1) / 10)
    assert failed(evaluation, limits={**DEFAULT_LIMITS, "int8": limits}) == {("it", "accuracy drop")}


def test_the_default_limits_are_the_promised_ones() -> None:
    int8, fp16 = DEFAULT_LIMITS["int8"], DEFAULT_LIMITS["fp16"]
    assert (int8.accuracy_drop, int8.agreement, int8.neighbours) == (0.5, 0.985, 1e-4)
    assert (fp16.accuracy_drop, fp16.agreement) == (0.2, 0.998)


def test_scores_that_depend_on_neighbours_fail_though_no_label_changes(measure: Measure) -> None:
    evaluation = measure(Stand(looks_around=True))
    assert failed(evaluation) == {("it", "neighbours")}
    with pytest.raises(VerificationError, match=r"neighbours move a score by .* \(allowed: at most 0.0001\)"):
        require(evaluation, judge(evaluation))


def test_scores_that_are_not_finite_fail(measure: Measure) -> None:
    evaluation = measure(Stand(finite=False))
    assert ("it", "finite") in failed(evaluation)
    assert not evaluation.measurements["it"].answers.finite.all()


def test_without_labels_agreement_and_shift_are_judged_and_accuracy_is_not_claimed(measure: Measure) -> None:
    evaluation = measure(Stand(flip_every=10), labelled=False)
    assert failed(evaluation) == {("it", "agreement"), ("it", "p99 shift")}
    document = as_document(evaluation, judge(evaluation), {}, "it")
    assert document["artefacts"]["it"]["accuracy"] is None
    assert "accuracy was not measured" in as_markdown(document, [])


def test_only_the_named_artefacts_are_judged(measure: Measure) -> None:
    evaluation = measure(Stand(flip_every=10))
    assert {finding.artefact for finding in judge(evaluation, names=["fp32"])} == {"fp32"}


def test_every_text_is_scored_in_its_own_place(measure: Measure, tokenizer: Tokenizer) -> None:
    found = measure(Stand()).measurements["fp32"].answers
    rows = [np.array([encoding.ids]) for encoding in tokenizer.encode_batch(list(texts()))]
    alone = np.concatenate([Stand().run(row, np.ones_like(row)) for row in rows])
    assert np.array_equal(found.chosen, alone > 0)


def test_multi_label_models_are_judged_on_sets_of_labels(measure: Measure) -> None:
    evaluation = measure(Stand(flip_every=10), problem_type=MULTI_LABEL)
    found = evaluation.measurements["it"]
    assert found.accuracy is not None
    assert found.accuracy.per_label is not None
    assert ("it", "agreement") in failed(evaluation)


# --- the report -----------------------------------------------------------------------------------


def write(evaluation: Evaluation, folder: Path) -> tuple[dict[str, Any], str, list[Path]]:
    about = {"name": "@cf/acme/<b>|mood"}
    write_report(evaluation, judge(evaluation), folder, about, chosen="it")
    files = sorted(folder.iterdir())
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return document, (folder / "report.md").read_text(encoding="utf-8"), files


def test_the_report_is_written_whether_the_gate_passes_or_not(measure: Measure, tmp_path: Path) -> None:
    timing = TimingSettings(rounds=2, seconds=0.001, loads=1)
    good, text, files = write(measure(Stand(), timing=timing), tmp_path / "good")
    bad, worse, _ = write(measure(Stand(flip_every=10), timing=timing), tmp_path / "bad")
    assert (good["passed"], bad["passed"]) == (True, False)
    assert "it passed the gate" in text
    assert "it failed the gate; nothing was published" in worse
    assert {file.name for file in files} == {
        "report.json", "report.md", "report.html", "accuracy-speed.png", "speed-by-length.png",
        "probability-shift.png", "calibration.png",
    }  # fmt: skip
    for file in files:
        assert file.stat().st_size > 500
        assert file.suffix != ".png" or file.name in text


def test_the_report_lists_every_flipped_text_with_both_scores(measure: Measure, tmp_path: Path) -> None:
    evaluation = measure(Stand(flip_every=10))
    document, text, _ = write(evaluation, tmp_path)
    flipped = document["artefacts"]["it"]["agreement"]["flipped"]
    assert [each["index"] for each in flipped] == list(evaluation.measurements["it"].flipped)
    assert [each["text"] for each in flipped] == [texts()[each["index"]] for each in flipped]
    assert all(each["reference"] != each["artefact"] for each in flipped)
    assert set(flipped[0]["reference_scores"]) == {"bad", "good"}
    assert f"it: {len(flipped)} texts, the first 10 (all are in report.json)" in text


def test_the_histogram_counts_every_text_once(measure: Measure, tmp_path: Path) -> None:
    document, _, _ = write(measure(Stand(flip_every=10)), tmp_path)
    for found in document["artefacts"].values():
        assert sum(found["agreement"]["shift_histogram"]) == TEXTS
        assert len(found["agreement"]["shift_histogram"]) == len(document["shift_histogram_edges"]) - 1


def test_the_report_names_its_host_and_names_no_path(measure: Measure, tmp_path: Path) -> None:
    document, text, _ = write(measure(Stand(flip_every=10)), tmp_path)
    host = describe_host()
    assert document["host"]["cpu"] == host.cpu
    assert document["host"]["onnxruntime"] in text
    assert document["settings"]["invariance"] == dataclasses.asdict(InvarianceSettings())
    assert document["settings"]["timing"] is None
    assert document["examples"]["texts"] == TEXTS
    for written in (json.dumps(document), text):
        assert str(tmp_path) not in written
        assert not re.search(r"(?<![\w@])/(home|tmp|root|usr|work)/", written)


def test_names_and_texts_cannot_break_out_of_the_markdown(measure: Measure, tmp_path: Path) -> None:
    evaluation = measure(Stand(flip_every=10))
    first = evaluation.measurements["it"].flipped[0]
    hostile = list(evaluation.examples.texts)
    hostile[first] = "a | b\n# <script>"
    evaluation = dataclasses.replace(
        evaluation, examples=dataclasses.replace(evaluation.examples, texts=tuple(hostile))
    )
    _, text, _ = write(evaluation, tmp_path)
    assert "a &#124; b # &lt;script&gt;" in text
    assert "@cf/acme/&lt;b&gt;&#124;mood" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_without_matplotlib_the_report_has_no_pictures(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "export.evaluation.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, text, files = write(measure(Stand()), tmp_path)
    assert [file.name for file in files] == ["report.html", "report.json", "report.md"]
    assert "![" not in text


# --- host, progress -------------------------------------------------------------------------------


def test_every_step_counts_up_to_its_total(measure: Measure) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.steps: list[str] = []
            self.last: dict[str, tuple[int, int]] = {}

        def step(self, name: str) -> None:
            self.steps.append(name)

        def advance(self, done: int, total: int) -> None:
            assert done > self.last.get(self.steps[-1], (0, 0))[0]
            self.last[self.steps[-1]] = (done, total)

    heard = Heard()
    measure(Stand(), timing=TimingSettings(rounds=2, seconds=0.001, loads=1), progress=heard)
    assert len(heard.steps) == len(heard.last) == 5
    assert all(done == total > 0 for done, total in heard.last.values())


@pytest.mark.parametrize(
    ("cpuinfo", "vnni", "warned"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_vnni\n", True, False),
        ("model name\t: Core\nflags\t\t: avx2 avx_vnni\n", True, False),
        ("model name\t: Old Xeon\nflags\t\t: fpu avx2\n", False, True),
        ("processor\t: 0\nFeatures\t: fp asimddp\n", None, False),
    ],
)
def test_only_an_x86_processor_without_vnni_is_warned_of(
    tmp_path: Path, cpuinfo: str, vnni: bool | None, warned: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    host = describe_host(file)
    assert host.vnni is vnni
    assert bool(host.warning) is warned
    assert describe_host(tmp_path / "missing").vnni is None

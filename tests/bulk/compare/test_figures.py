"""Figures and reports of answers that are known by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bulk.compare.answers import Answers, Pair, Side, SideAnswer, load_answers, report_json
from bulk.compare.figures import Figures, compute
from bulk.compare.report import markdown, sections
from bulk.compare.statistics import Share
from bulk.compare.terminal import print_sections
from bulk.compare.threshold import Decisions, ThresholdAdvice
from bulk.errors import BulkError, TableError

SIDES = (
    Side("A", "https://a.example/client/v4", "@cf/x/y", 4, 2000.0),
    Side("B", "http://127.0.0.1:8787", "@cf/x/y", 4),
)


def answer(positive: float, seconds: float = 0.01, **more: object) -> SideAnswer:
    return SideAnswer(("NEGATIVE", "POSITIVE"), (1 - positive, positive), seconds=seconds, **more)  # type: ignore[arg-type]


def answers(*scores: tuple[float, float]) -> Answers:
    pairs = [
        Pair(place + 2, f"text {place}", answer(a, 0.001 * (place + 1)), answer(b, version="3"))
        for place, (a, b) in enumerate(scores)
    ]
    return Answers(SIDES, pairs, repeated=2, empty=1)


def test_agreement_shift_and_latency_are_counted() -> None:
    figures = compute(answers((0.9, 0.8), (0.9, 0.4), (0.2, 0.25), (0.1, 0.0), (0.55, 0.01)))
    assert figures.same is not None
    assert (figures.same.count, figures.same.total) == (3, 5)
    assert [(each.row, each.a_label, each.b_label) for each in figures.differences] == [
        (3, "POSITIVE", "NEGATIVE"),  # 0.9 against 0.6
        (6, "POSITIVE", "NEGATIVE"),  # 0.55 against 0.99
    ]
    (shift,) = figures.shifts
    assert shift.label == "POSITIVE"
    assert shift.texts == 5
    assert shift.mean == pytest.approx((-0.1 - 0.5 + 0.05 - 0.1 - 0.54) / 5)
    assert [shift.p5, shift.p50, shift.p95] == pytest.approx([-0.54, -0.1, 0.05])
    assert shift.largest == pytest.approx(-0.54)
    assert sum(count for _, count in figures.sizes) == 5
    assert dict(figures.sizes)[1.0] == 1
    a, b = figures.sides
    assert [a.p50_ms, a.p95_ms] == pytest.approx([3, 5])
    assert (a.versions, b.versions) == ((), ("3",))
    assert (figures.texts, figures.repeated, figures.empty) == (5, 2, 1)


def test_what_failed_is_counted_by_reason_and_compared_nowhere() -> None:
    pairs = [
        Pair(1, "a", answer(0.9), SideAnswer(error="Bad input")),
        Pair(2, "b", SideAnswer(error="Bad input"), SideAnswer(error="Bad input")),
        Pair(3, "c", answer(0.9, truncated=True), answer(0.8)),
    ]
    figures = compute(Answers(SIDES, pairs))
    assert figures.compared == 1
    assert figures.same is not None
    assert figures.same.total == 1
    assert [side.failed for side in figures.sides] == [{"Bad input": 1}, {"Bad input": 2}]
    assert [side.truncated for side in figures.sides] == [1, 0]


def test_nothing_answered_is_a_report_too() -> None:
    figures = compute(Answers(SIDES, [Pair(1, "a", SideAnswer(error="x"), SideAnswer(error="x"))]))
    assert (figures.same, figures.shifts) == (None, ())
    assert "0 were answered by both sides" in markdown(sections(figures, 10)).replace("\\", "")


def test_labels_are_compared_by_name_whatever_their_order() -> None:
    swapped = SideAnswer(("POSITIVE", "NEGATIVE"), (0.8, 0.2))
    other = SideAnswer(("POSITIVE", "neutral"), (0.8, 0.2))
    figures = compute(Answers(SIDES, [Pair(1, "a", answer(0.9), swapped), Pair(2, "b", answer(0.9), other)]))
    assert figures.same is not None
    assert figures.same.count == 2
    assert (figures.only_a, figures.only_b) == ((), ("neutral",))


def test_several_labels_need_a_name_for_a_threshold() -> None:
    three = SideAnswer(("bad", "neutral", "good"), (0.1, 0.2, 0.7))
    many = Answers(SIDES, [Pair(place, str(place), three, three) for place in range(30)])
    with pytest.raises(BulkError, match="with --label; both sides have: bad, neutral, good"):
        compute(many, None, 0.5)
    with pytest.raises(BulkError, match=r"all 30 texts are above 0\.5 on the old scores of good"):
        compute(many, "good", 0.5)
    assert [shift.label for shift in compute(many).shifts] == ["bad", "neutral", "good"]


def thresholded() -> Figures:
    scores = [(place / 100, (place / 100) ** 2) for place in range(100)]
    return compute(answers(*scores), None, 0.8)


def test_a_threshold_is_advised_for_the_positive_label() -> None:
    advice = thresholded().threshold
    assert advice is not None
    assert (advice.label, advice.old, advice.positives.count) == ("POSITIVE", 0.8, 20)
    assert 0.79**2 < advice.cut <= 0.8**2
    assert (advice.fitted.same.count, advice.unchanged.lost) == (100, 10)


def test_a_report_shows_texts_without_rendering_them() -> None:
    text = "a | b\n![x](http://evil.example/x.png) <b> \x1b[31m*c*"
    pairs = [Pair(1, text, answer(0.9), answer(0.1))]
    page = markdown(sections(compute(Answers(SIDES, pairs)), 10))
    (row,) = [line for line in page.splitlines() if line.startswith("| 1 |")]
    assert row == (
        "| 1 | POSITIVE 0.900 | NEGATIVE 0.900 | a \\| b \\!\\[x\\](http://evil.example/x.png) \\<b\\> "
        "\\[31m\\*c\\* |"
    )
    assert "\x1b" not in page


def test_a_page_is_of_whole_tables_and_shows_as_many_differences_as_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = sections(thresholded(), 3)
    page = markdown(found)
    assert re.findall("^## (.*)", page, re.M) == ["Servers", "Labels", "Scores", "Threshold"]
    for block in re.findall(r"(?:^\|.*\n)+", page, re.M):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    shown = next(section for section in found if section.title == "Labels")
    assert len(shown.rows) == 3
    print_sections(found)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 160
    assert "no longer POSITIVE" in printed


def test_a_report_in_json_can_be_computed_again(tmp_path: Path) -> None:
    given = answers((0.9, 0.8), (0.9, 0.4))
    file = tmp_path / "report.json"
    file.write_bytes(report_json(given, compute(given)))
    assert compute(load_answers(file)) == compute(given)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{}", "is no report"), (b"[", "is no report"), (None, "cannot be read")],
)
def test_another_file_is_no_report(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "report.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TableError, match=reason):
        load_answers(file)


def test_a_report_of_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    given = report_json(answers((0.9, 0.8)), None)
    file.write_bytes(given.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(TableError, match="another version"):
        load_answers(file)


def test_a_threshold_is_shown_with_all_of_its_digits() -> None:
    both = Decisions(Share(20, 20), 0, 0)
    advice = ThresholdAdvice(
        "POSITIVE", 0.1234567, Share(10, 20), both, 0.9990014, both, Share(20, 20), (0.9990012, 0.9990017)
    )
    page = markdown(sections(replace(thresholded(), threshold=advice), 0))
    for number in ("0.1234567", "0.9990014", "0.9990012", "0.9990017"):
        assert number in page
    assert f"Best threshold at B: {advice.cut}." in page

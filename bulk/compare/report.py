"""A comparison as tables: on a terminal and in Markdown, from the same sections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bulk.compare.figures import Figures, SideFigures
from bulk.compare.statistics import Share
from bulk.compare.threshold import Decisions, ThresholdAdvice

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#!~])")


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its title and sentences."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...] = ()
    """Shown above the table."""
    texts: frozenset[str] = frozenset()
    """Columns whose cells may be shortened."""


def sections(figures: Figures, most_differences: int) -> list[Section]:
    """Return what a report shows.

    Args:
        figures: of the comparison.
        most_differences: the most differing texts to show.
    """
    found = [_servers(figures)]
    if figures.same is not None:
        found.append(_labels(figures, figures.same, most_differences))
    if figures.shifts:
        found.append(_shifts(figures))
    if figures.threshold is not None:
        found.append(_threshold(figures.threshold))
    return found


def markdown(found: Sequence[Section]) -> str:
    """Return the sections as a page; what is in a text is shown, never rendered."""
    lines = ["# Comparison"]
    for section in found:
        lines += ["", f"## {section.title}", ""]
        for sentence in section.sentences:
            lines += [_escaped(sentence), ""]
        if section.rows:
            lines += [_row(section.columns), "|" + "---|" * len(section.columns)]
            lines += [_row(row) for row in section.rows]
    return "\n".join(lines) + "\n"


def clean(text: str) -> str:
    """Return a text in one line, without what steers a terminal."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\1", clean(text))


def _servers(figures: Figures) -> Section:
    sentences = [
        f"{figures.texts:,} texts; {figures.compared:,} were answered by both sides.",
    ]
    if figures.repeated or figures.empty:
        sentences.append(
            f"{figures.repeated:,} rows repeat a text, which was asked once; {figures.empty:,} have none."
        )
    if any(side.p50_ms is not None for side in figures.sides):
        sentences.append(
            "Latency is that of a request with one text, seen from here, network included, while all "
            "connections to both servers were in use."
        )
    rows = [
        ("asked", *(side.side.source for side in figures.sides)),
        ("model", *(side.side.model for side in figures.sides)),
        ("version", *(_version(side) for side in figures.sides)),
        ("answered", *(f"{side.answered:,}" for side in figures.sides)),
        ("failed", *(_failed(side) for side in figures.sides)),
        ("text was cut", *(f"{side.truncated:,}" for side in figures.sides)),
        ("latency p50", *(_ms(side.p50_ms) for side in figures.sides)),
        ("latency p95", *(_ms(side.p95_ms) for side in figures.sides)),
        ("connections", *(str(side.side.connections or "") for side in figures.sides)),
        ("requests a minute", *(_rate(side) for side in figures.sides)),
    ]
    return Section("Servers", ("", "A", "B"), tuple(rows), tuple(sentences))


def _version(side: SideFigures) -> str:
    return ", ".join(side.versions) or ("not told" if side.side.connections else "")


def _failed(side: SideFigures) -> str:
    return "; ".join(f"{count:,} × {reason}" for reason, count in side.failed.items()) or "0"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"


def _rate(side: SideFigures) -> str:
    if not side.side.connections:
        return ""
    return f"at most {side.side.per_minute:,.0f}" if side.side.per_minute else "not limited here"


def _labels(figures: Figures, same: Share, most: int) -> Section:
    shown = figures.differences[:most]
    sentences = [f"Same best label: {same}."]
    if figures.only_a or figures.only_b:
        sentences.append(
            f"Labels of A alone: {', '.join(figures.only_a) or 'none'}; of B alone: "
            f"{', '.join(figures.only_b) or 'none'}. Labels are compared by their names."
        )
    if len(shown) < len(figures.differences):
        sentences.append(
            f"{len(shown)} of {len(figures.differences):,} texts with other labels; those come first on "
            "which both sides are surest."
        )
    rows = tuple(
        (
            str(each.row),
            f"{each.a_label} {each.a_score:.3f}",
            f"{each.b_label} {each.b_score:.3f}",
            each.text,
        )
        for each in shown
    )
    return Section("Labels", ("row", "A", "B", "text"), rows, tuple(sentences), frozenset(("text",)))


def _shifts(figures: Figures) -> Section:
    total = sum(count for _, count in figures.sizes) or 1
    below, groups = 0.0, []
    for bound, count in figures.sizes:
        groups.append(f"{below:g} to {bound:g}: {count / total:.1%}")
        below = bound
    rows = tuple(
        (
            shift.label,
            f"{shift.texts:,}",
            *(f"{value:+.4f}" for value in (shift.mean, shift.p5, shift.p50, shift.p95, shift.largest)),
        )
        for shift in figures.shifts
    )
    sentences = (
        "A shift is B's score minus A's.",
        f"Texts by the size of their largest shift: {', '.join(groups)}.",
    )
    return Section("Scores", ("label", "texts", "mean", "p5", "p50", "p95", "largest"), rows, sentences)


def _threshold(advice: ThresholdAdvice) -> Section:
    low, high = advice.cuts
    sentences = (
        f"A text counts as {advice.label} if its score is at least {advice.old!r} at A: {advice.positives}.",
        f"Best threshold at B: {advice.cut!r}.",
        "Held out: each tenth of the texts is judged by the threshold that is best on the other nine "
        f"(these lie between {low!r} and {high!r}). It is the figure to expect for other texts of this kind.",
    )
    rows = (
        _decided(f"{advice.old!r}, unchanged", advice.unchanged),
        _decided(f"{advice.cut!r}, best on these texts", advice.fitted),
        ("best, held out", str(advice.held_out), "", ""),
    )
    columns = ("threshold at B", "same decisions", f"newly {advice.label}", f"no longer {advice.label}")
    return Section("Threshold", columns, rows, sentences)


def _decided(name: str, decisions: Decisions) -> tuple[str, str, str, str]:
    return name, str(decisions.same), f"{decisions.gained:,}", f"{decisions.lost:,}"

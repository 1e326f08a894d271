"""``report.md``: the report for people, from the numbers of ``report.json`` only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.evaluation.markdown import Markup, cell, shortened, table
from export.evaluation.metrics import CALIBRATION_BINS
from export.evaluation.report_labels import labels_sections

SHOWN_FLIPS = 10


def as_markdown(document: Mapping[str, Any], plots: Sequence[str]) -> str:
    """The same for people; ``plots`` are the names of pictures beside it."""
    parts = [
        "# Export report",
        *(f"> **WARNING: {cell(each['found'])}** {cell(each['remedy'])}" for each in document["warnings"]),
        table(("about", ""), document["about"].items()),
        _summary(document),
        "## Answers",
        _rankings(document) if document["examples"]["queries"] else _answers(document),
        *labels_sections(document),
        "## Gate",
        _gate(document),
        "## Neighbours",
        _neighbours(document),
    ]
    if document["settings"]["timing"] is not None:
        parts += ["## Speed", _speed(document), _lengths(document)]
    parts += [f"![{name.removesuffix('.png').replace('-', ' ')}]({name})" for name in plots]
    flips = _flips(document)
    if flips:
        parts += ["## Other first texts" if document["examples"]["queries"] else "## Flipped texts", flips]
    return "\n\n".join(parts) + "\n"


def _noun(document: Mapping[str, Any]) -> str:
    """What a model of this task is asked about."""
    return "pairs" if document["examples"]["queries"] else "texts"


def _summary(document: Mapping[str, Any]) -> str:
    examples, host = document["examples"], document["host"]
    chosen = document["chosen"]
    verdict = f"{chosen} passed the gate and is what is published."
    if not document["passed"]:
        verdict = f"**{chosen} failed the gate; nothing was published.**"
    kind = f"pairs of {examples['queries']:,} queries" if examples["queries"] else "texts"
    texts = (
        f"{examples['texts']:,} {kind} from {cell(examples['source'])}, "
        f"{examples['tokens_mean']:g} tokens on average, {examples['tokens_longest']} at most."
    )
    machine = (
        f"Measured on {host['cpu']}{' (VNNI)' if host['vnni'] else ''}, ONNX Runtime {host['onnxruntime']}."
    )
    lines = [f"{verdict} {texts} {machine}"]
    if not examples["labelled"]:
        what = "pairs have no labels: MRR@10" if examples["queries"] else "texts have no labels: accuracy"
        lines.append(f"The {what} was not measured, and the gate did without it.")
    if host["warning"]:
        lines.append(host["warning"])
    return "\n\n".join(lines)


def _answers(document: Mapping[str, Any]) -> str:
    rows = []
    for name, found in document["artefacts"].items():
        right, same = found["accuracy"], found["agreement"]
        rows.append(
            (
                name,
                f"{found['bytes'] / 1e6:.1f}",
                f"{100 * right['share']:.2f} % ({100 * right['low']:.1f}–{100 * right['high']:.1f})"
                if right
                else "not measured",
                f"{100 * same['share']:.2f} %",
                f"{same['largest_shift']:.1e}",
                f"{same['p99_shift']:.1e}",
                f"{right['calibration_error']:.4f}" if right else "not measured",
            )
        )
    reference = document["reference"]
    head = ("artefact", "MB", "accuracy (95 % interval)", f"agrees with {reference}", "largest Δp")
    explained = (
        f"Δp is how far a text's most moved label is from {reference}'s probability; "
        f"the calibration error is the expected one over {CALIBRATION_BINS} bins of equal width."
    )
    return f"{table((*head, '99th percentile of Δp', 'calibration error'), rows)}\n\n{explained}"


def _rankings(document: Mapping[str, Any]) -> str:
    rows, reference = [], document["reference"]
    for name, found in document["artefacts"].items():
        ranking, same = found["ranking"], found["agreement"]
        relevance = ranking["relevance"]
        rows.append(
            (
                name,
                f"{found['bytes'] / 1e6:.1f}",
                f"{relevance['mrr']:.4f}" if relevance else "not measured",
                f"{ranking['kendall_tau']:.4f} ({ranking['lowest_tau']:.2f})",
                f"{100 * ranking['top_share']:.2f} %",
                f"{same['largest_shift']:.1e}",
                f"{same['p99_shift']:.1e}",
            )
        )
    first = document["artefacts"][reference]["ranking"]
    explained = (
        f"Kendall's tau-b compares the order of a query's texts with {reference}'s: the mean of "
        f"{first['queries']:,} queries, in brackets the lowest. Δp is how far a pair's probability is from "
        f"{reference}'s."
    )
    if first["relevance"]:
        explained += (
            f" MRR@10 is taken over the {first['relevance']['queries']:,} queries with a relevant text; a "
            f"random order would give {first['relevance']['random']:.4f}."
        )
    head = ("artefact", "MB", "MRR@10", "Kendall's tau (lowest)", f"first text as {reference}", "largest Δp")
    return f"{table((*head, '99th percentile of Δp'), rows)}\n\n{explained}"


def _gate(document: Mapping[str, Any]) -> str:
    rows = (
        (each["artefact"], each["found"], each["allowed"], "yes" if each["passed"] else Markup("**no**"))
        for each in document["gate"]
    )
    return table(("artefact", "found", "allowed", "passed"), rows)


def _neighbours(document: Mapping[str, Any]) -> str:
    names = list(document["artefacts"])
    tried = [found["neighbours"]["tried"] for found in document["artefacts"].values()]
    rows = (
        (
            kinds[0]["name"],
            kinds[0]["batches"],
            kinds[0]["rows"],
            *(f"{kind['largest_shift']:.1e}" for kind in kinds),
        )
        for kinds in zip(*tried, strict=True)
    )
    count = document["artefacts"][names[0]]["neighbours"]["texts"]
    intro = (
        f"Largest Δp of {count} {_noun(document)} of all lengths between alone and in a padded batch. "
        "No test can try every batch; these kinds were tried:"
    )
    head = ("batches", "number", f"{_noun(document)} in them", *names)
    return f"{intro}\n\n{table(head, rows)}"


def _speed(document: Mapping[str, Any]) -> str:
    rows = []
    for name, found in document["artefacts"].items():
        speed = found["speed"]
        rows.append(
            (
                name,
                f"{speed['load_ms']:.0f}",
                f"{speed['alone_ms']:.2f}",
                f"{speed['alone_p99_ms']:.2f}",
                f"{speed['alone_per_second']:.0f} ({speed['alone_ratio']:.2f} ×)",
                f"{speed['grouped_per_second']:.0f} ({speed['grouped_ratio']:.2f} ×)",
            )
        )
    texts = document["artefacts"][document["reference"]]["speed"]["texts"]
    timing = document["settings"]["timing"]
    intro = (
        f"One thread, without tokenization; medians of {timing['rounds']} alternating rounds over the same "
        f"{texts} {_noun(document)} of all lengths; in brackets the median of the rounds' ratios to "
        f"{document['reference']}."
    )
    unit, noun = ("pair", "pairs") if document["examples"]["queries"] else ("text", "sentences")
    head = ("artefact", "load ms", f"ms a {unit}, batch 1", "99th percentile", f"{noun}/s, batch 1")
    return f"{intro}\n\n{table((*head, f'{noun}/s, groups of like length'), rows)}"


def _lengths(document: Mapping[str, Any]) -> str:
    speeds = {name: found["speed"]["ms_by_length"] for name, found in document["artefacts"].items()}
    lengths = list(speeds[document["reference"]])
    rows = ((name, *(f"{times[length]:.1f}" for length in lengths)) for name, times in speeds.items())
    unit = _noun(document).removesuffix("s")
    return f"Milliseconds a {unit} by its tokens, batch 1:\n\n{table(('tokens', *lengths), rows)}"


def _flips(document: Mapping[str, Any]) -> str:
    parts, asked = [], document["examples"]["queries"]
    for name, found in document["artefacts"].items():
        flipped = found["agreement"]["flipped"]
        rows = (
            (
                *([each["query"]] if asked else []),
                shortened(each["text"]),
                _said(each["reference_scores"]),
                _said(each["artefact_scores"]),
            )
            for each in flipped[:SHOWN_FLIPS]
        )
        if flipped:
            shown = (
                "" if len(flipped) <= SHOWN_FLIPS else f", the first {SHOWN_FLIPS} (all are in report.json)"
            )
            head = ("query", "text") if asked else ("text",)
            listed = table((*head, document["reference"], name), rows)
            parts.append(f"{name}: {len(flipped)} {'queries' if asked else 'texts'}{shown}.\n\n{listed}")
    return "\n\n".join(parts)


def _said(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {score:.3f}" for label, score in scores.items())

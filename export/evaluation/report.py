"""``report.json``, ``report.md`` and pictures; the Markdown and the pictures use the JSON's numbers only."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from export.evaluation.doubts import Doubt
from export.evaluation.evaluate import Evaluation, Measurement
from export.evaluation.gate import Finding
from export.evaluation.metrics import CALIBRATION_BINS

SCHEMA = 1
SHOWN_FLIPS = 10
# Four bins a decade.
SHIFT_EDGES = tuple(float(f"{edge:.3g}") for edge in np.logspace(-7, 0, 29))


def write_report(
    evaluation: Evaluation,
    findings: Sequence[Finding],
    folder: Path,
    about: Mapping[str, str],
    chosen: str,
    doubts: Sequence[Doubt] = (),
) -> Path:
    """Write ``report.json``, ``report.md`` and PNG files, whether the gate was passed or not.

    Args:
        evaluation: what was measured.
        findings: the gate's findings about it.
        folder: beside the artefacts; made if it does not exist.
        about: what the report is about, e.g. name, checkpoint, SHA-256; shown as it is, so no paths.
        chosen: the artefact that is to be published; the others are there to compare.
        doubts: what speaks against it although it may pass.

    Returns:
        ``report.md``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = as_document(evaluation, findings, about, chosen, doubts)
    json_file, markdown_file = folder / "report.json", folder / "report.md"
    json_file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    try:
        from export.evaluation.plots import write_plots  # noqa: PLC0415 (slow to import)
    except ImportError:
        # A gate must not fail for want of pictures.
        plots = []
    else:
        plots = write_plots(document, folder)
    markdown_file.write_text(as_markdown(document, [plot.name for plot in plots]), encoding="utf-8")
    return markdown_file


def as_document(
    evaluation: Evaluation,
    findings: Sequence[Finding],
    about: Mapping[str, str],
    chosen: str,
    doubts: Sequence[Doubt] = (),
) -> dict[str, Any]:
    """The content of ``report.json``: figures in the units that their names give, shares in 0…1."""
    tokens = evaluation.tokens
    return {
        "schema": SCHEMA,
        "about": dict(about),
        "chosen": chosen,
        "passed": all(finding.passed for finding in findings if finding.artefact == chosen),
        "warnings": [asdict(doubt) for doubt in doubts],
        "reference": evaluation.reference,
        "labels": list(evaluation.labels),
        "problem_type": evaluation.problem_type,
        "examples": {
            "source": evaluation.examples.source,
            "texts": len(tokens),
            "queries": len(evaluation.examples.groups) or None,
            "labelled": evaluation.examples.targets is not None,
            "tokens_mean": round(float(tokens.mean()), 1),
            "tokens_median": float(np.median(tokens)),
            "tokens_longest": int(tokens.max()),
        },
        "host": asdict(evaluation.host) | {"warning": evaluation.host.warning},
        "settings": {
            "invariance": asdict(evaluation.invariance),
            "timing": evaluation.timing and asdict(evaluation.timing),
        },
        "shift_histogram_edges": list(SHIFT_EDGES),
        "gate": [asdict(finding) for finding in findings],
        "artefacts": {name: _artefact(found, evaluation) for name, found in evaluation.measurements.items()},
    }


def _artefact(found: Measurement, evaluation: Evaluation) -> dict[str, Any]:
    clipped = np.clip(found.shifts, SHIFT_EDGES[0], SHIFT_EDGES[-1])
    agreement = asdict(found.agreement) | {
        "shift_histogram": np.histogram(clipped, SHIFT_EDGES)[0].tolist(),
        "flipped": [_flip(index, found, evaluation) for index in found.flipped],
    }
    neighbours = asdict(found.invariance)
    neighbours["flipped"] = [
        {"index": index, "text": evaluation.examples.texts[index]} for index in found.invariance.flipped
    ]
    speed = None
    if found.speed is not None:
        speed = asdict(found.speed)
        speed["ms_by_length"] = {str(length): ms for length, ms in speed.pop("by_length").items()}
    return {
        "precision": found.precision,
        "bytes": found.size,
        "not_finite": int((~found.answers.finite).sum()),
        "accuracy": found.accuracy and asdict(found.accuracy),
        "ranking": found.ranking and asdict(found.ranking),
        "agreement": agreement,
        "neighbours": neighbours,
        "speed": speed,
    }


def _flip(index: int, found: Measurement, evaluation: Evaluation) -> dict[str, Any]:
    """One text with both answers: the scores of the labels that either model chose, or a reranker's score."""
    reference = evaluation.measurements[evaluation.reference].answers
    targets, queries = evaluation.examples.targets, evaluation.examples.queries
    either = np.flatnonzero(found.answers.chosen[index] | reference.chosen[index])
    if queries is not None:
        either = np.arange(len(evaluation.labels))

    def names(chosen: Any) -> list[str]:
        return [evaluation.labels[i] for i in np.flatnonzero(chosen)]

    def scores(given: Any) -> dict[str, float]:
        return {evaluation.labels[i]: round(float(given.scores[index, i]), 6) for i in either}

    return {
        "index": index,
        **({} if queries is None else {"query": queries[index]}),
        "text": evaluation.examples.texts[index],
        "labels": None if targets is None else names(targets[index]),
        "reference": names(reference.chosen[index]),
        "artefact": names(found.answers.chosen[index]),
        "reference_scores": scores(reference),
        "artefact_scores": scores(found.answers),
    }


def as_markdown(document: Mapping[str, Any], plots: Sequence[str]) -> str:
    """The same for people; ``plots`` are the names of pictures beside it."""
    parts = [
        "# Export report",
        *(f"> **WARNING: {_cell(each['found'])}** {_cell(each['remedy'])}" for each in document["warnings"]),
        _table(("about", ""), document["about"].items()),
        _summary(document),
        "## Answers",
        _rankings(document) if document["examples"]["queries"] else _answers(document),
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


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    # Texts and names are other people's: they may hold anything, and must not end a cell.
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "&#124;")


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
        f"{examples['texts']:,} {kind} from {_cell(examples['source'])}, "
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
    return f"{_table((*head, '99th percentile of Δp', 'calibration error'), rows)}\n\n{explained}"


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
    return f"{_table((*head, '99th percentile of Δp'), rows)}\n\n{explained}"


def _gate(document: Mapping[str, Any]) -> str:
    rows = (
        (each["artefact"], each["found"], each["allowed"], "yes" if each["passed"] else "**no**")
        for each in document["gate"]
    )
    return _table(("artefact", "found", "allowed", "passed"), rows)


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
    return f"{intro}\n\n{_table(head, rows)}"


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
    return f"{intro}\n\n{_table((*head, f'{noun}/s, groups of like length'), rows)}"


def _lengths(document: Mapping[str, Any]) -> str:
    speeds = {name: found["speed"]["ms_by_length"] for name, found in document["artefacts"].items()}
    lengths = list(speeds[document["reference"]])
    rows = ((name, *(f"{times[length]:.1f}" for length in lengths)) for name, times in speeds.items())
    unit = _noun(document).removesuffix("s")
    return f"Milliseconds a {unit} by its tokens, batch 1:\n\n{_table(('tokens', *lengths), rows)}"


def _flips(document: Mapping[str, Any]) -> str:
    parts, asked = [], document["examples"]["queries"]
    for name, found in document["artefacts"].items():
        flipped = found["agreement"]["flipped"]
        rows = (
            (
                *([each["query"]] if asked else []),
                each["text"],
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
            table = _table((*head, document["reference"], name), rows)
            parts.append(f"{name}: {len(flipped)} {'queries' if asked else 'texts'}{shown}.\n\n{table}")
    return "\n\n".join(parts)


def _said(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {score:.3f}" for label, score in scores.items())

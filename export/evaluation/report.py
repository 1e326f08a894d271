"""``report.json``, ``report.md``, ``report.html`` and pictures; all use the JSON's numbers only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from export.evaluation.doubts import Doubt
from export.evaluation.evaluate import Evaluation, Measurement
from export.evaluation.gate import Finding
from export.evaluation.page import as_page
from export.evaluation.report_text import as_markdown
from export.files import write_atomically

SCHEMA = 1
PAGE, FIGURES = "report.html", "figures-{}.html"
KEPT_FIGURES = 10
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
    """Write ``report.json``, ``.md``, ``.html`` and PNG files, whether the gate was passed or not.

    The HTML is one file that needs no other. It holds texts of the evaluation, as the others do;
    `write_figures` writes what may leave the operator's hands.

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
    try:
        from export.evaluation.plots import write_plots  # noqa: PLC0415 (slow to import)
    except ImportError:
        # A gate must not fail for want of pictures.
        plots = []
    else:
        plots = write_plots(document, folder)
    document["plots"] = [plot.name for plot in plots]
    json_file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    markdown = as_markdown(document, document["plots"])
    markdown_file.write_text(markdown, encoding="utf-8")
    (folder / PAGE).write_text(as_page(markdown, _title(about), plots), encoding="utf-8")
    return markdown_file


def write_figures(folder: Path, digest: str, version: int) -> Path:
    """Write the report of a publication without texts, from the files of `write_report`.

    Its name has the digest of what is published, by which a gateway finds it, and never that of another
    version. Those of earlier publications stay, for a version that is taken back to, but for the oldest.
    The same content, published again, has the figures of its last evaluation.

    Args:
        folder: where the report is; the caller must be its only writer.
        digest: of the published model; see `ServedModel.digest`.
        version: of the model as published.

    Raises:
        OSError: a file cannot be read or written.
    """
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    document["about"]["version"] = str(version)
    markdown = as_markdown(without_texts(document), document["plots"])
    page = as_page(markdown, _title(document["about"]), [folder / name for name in document["plots"]])
    for part in folder.glob(f".{FIGURES.format('*')}.part"):
        part.unlink()  # an export of another model was killed in between
    file = folder / FIGURES.format(digest)
    write_atomically(file, page.encode())
    by_age = sorted(folder.glob(FIGURES.format("*")), key=lambda each: -each.stat().st_mtime)
    for old in by_age[KEPT_FIGURES:]:
        old.unlink()
    return file


def _title(about: Mapping[str, str]) -> str:
    return f"Export report of {about.get('name', 'a model')}"


def without_texts(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same report without a text of the evaluation: what callers of the model may read."""
    artefacts = {}
    for name, found in document["artefacts"].items():
        artefacts[name] = {
            **found,
            "agreement": {**found["agreement"], "flipped": []},
            "neighbours": {**found["neighbours"], "flipped": []},
            "quality": found["quality"] and {**found["quality"], "errors": []},
        }
    return {**document, "artefacts": artefacts}


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
        "quality": _quality(found, evaluation),
        "ranking": found.ranking and asdict(found.ranking),
        "agreement": agreement,
        "neighbours": neighbours,
        "speed": speed,
    }


def _quality(found: Measurement, evaluation: Evaluation) -> dict[str, Any] | None:
    """Figures of each label by its name, and the worst errors with their texts."""
    quality, targets = found.quality, evaluation.examples.targets
    if quality is None or targets is None:
        return None
    labels = evaluation.labels

    def names(chosen: Any) -> list[str]:
        return [labels[i] for i in np.flatnonzero(chosen)]

    errors = [
        {
            "index": index,
            "text": evaluation.examples.texts[index],
            "labels": names(targets[index]),
            "answered": names(found.answers.chosen[index]),
            "loss": loss,
        }
        for index, loss in zip(quality.worst, quality.losses, strict=True)
    ]
    return {
        "majority": quality.majority,
        "macro_f1": quality.macro_f1,
        "log_loss": quality.log_loss,
        "labels": [
            {"label": label, **asdict(each)} for label, each in zip(labels, quality.labels, strict=True)
        ],
        "matrix": quality.matrix and [list(row) for row in quality.matrix],
        "mistakes": [
            {"label": labels[each.label], "answered": labels[each.answered], "texts": each.texts}
            for each in quality.mistakes
        ],
        "calibration": [asdict(each) for each in quality.calibration],
        "errors": errors,
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

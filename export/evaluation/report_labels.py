"""What ``report.md`` says of each label of a classifier: quality, confusion, calibration, worst errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from export.evaluation.markdown import cell, shortened, table

SHOWN_LABELS = 100


def labels_sections(document: Mapping[str, Any]) -> Iterator[str]:
    """Sections about the artefact that is published; none without labels, and none for a reranker."""
    name = document["chosen"]
    quality = document["artefacts"][name]["quality"]
    if quality is None:
        return
    texts = document["examples"]["texts"]
    yield "## Labels"
    yield (
        f"All of this is {cell(name)} on {texts:,} texts. The mean F1 of the labels is "
        f"{_percent(quality['macro_f1'])}, the mean loss {quality['log_loss']:.4f}. One answer to all texts "
        f"would be right for {_percent(quality['majority'] / texts)} at best."
    )
    yield _labels(quality["labels"])
    yield from _confusion(document["labels"], quality)
    yield from _calibration(quality["calibration"])
    yield from _errors(quality["errors"])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _labels(labels: list[Mapping[str, Any]]) -> str:
    rows = [
        (
            each["label"],
            _percent(each["precision"]),
            _percent(each["recall"]),
            _percent(each["f1"]),
            each["support"],
            each["predicted"],
        )
        for each in labels[:SHOWN_LABELS]
    ]
    shown = table(("label", "precision", "recall", "F1", "texts", "answers"), rows)
    more = len(labels) - SHOWN_LABELS
    return f"{shown}\n\n{more} more labels are in report.json." if more > 0 else shown


def _confusion(labels: list[str], quality: Mapping[str, Any]) -> Iterator[str]:
    if quality["matrix"] is not None:
        yield "### Confusion matrix"
        yield "Each row holds the texts of one label, each column those that were given one."
        rows = ((label, *row) for label, row in zip(labels, quality["matrix"], strict=True))
        yield table(("label", *labels), rows)
    elif quality["mistakes"]:
        yield "### Commonest mistakes"
        rows_ = ((each["label"], each["answered"], each["texts"]) for each in quality["mistakes"])
        yield table(("label", "answered", "texts"), rows_)


def _calibration(bins: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "### Calibration"
    yield "How often decisions of about the same confidence are right:"
    rows = ((each["decisions"], _percent(each["confidence"]), _percent(each["right"])) for each in bins)
    yield table(("decisions", "mean confidence", "right"), rows)


def _errors(errors: list[Mapping[str, Any]]) -> Iterator[str]:
    if not errors:
        return
    yield "## Worst errors"
    yield (
        f"The {len(errors)} wrong answers with the greatest loss, which is the negative natural logarithm of "
        "the right label's probability. Some may be errors of the data."
    )
    rows = (
        (
            shortened(each["text"]),
            ", ".join(each["labels"]) or "none",
            ", ".join(each["answered"]) or "none",
            f"{each['loss']:.4f}",
        )
        for each in errors
    )
    yield table(("text", "label", "answered", "loss"), rows)

"""Texts that artefacts are compared on: the checkpoint's held-out sentences, or our own."""

from __future__ import annotations

import csv
from pathlib import Path

HELDOUT = "heldout.tsv"
LIMIT = 256

_OWN = (
    "This pizza is great!",
    "no",
    "I waited an hour for a cold coffee and nobody said sorry.",
    "The plot wanders, the jokes fall flat, and yet I could not stop smiling.",
    "It arrived on Tuesday.",
    "Not bad, not bad at all; in fact I ordered a second one for my sister.",
    "Ausgezeichnet 👍 — très bien, 素晴らしい!",
    "refund refund refund",
)


def sample_texts(folder: Path) -> list[str]:
    """At most LIMIT texts of mixed lengths, some of them near the model's limit."""
    heldout = folder / HELDOUT
    texts = list(_OWN)
    if heldout.is_file():
        with heldout.open(newline="", encoding="utf-8") as file:
            texts += [row["text"] for row in csv.DictReader(file, delimiter="\t")]
    # Long texts are rare in any data set, and they are where padding and position ids go wrong.
    texts = texts[: LIMIT - 3]
    return [*texts, *(" ".join(_OWN * times) for times in (2, 5, 20))]

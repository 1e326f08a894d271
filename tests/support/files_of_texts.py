"""Files of texts with everything that is awkward in them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from loadtest.bench.sentences import read_sentences
from tests.support.texts import CHECKPOINT

COLUMNS = ("id", "review", "note")


def write_awkward_csv(path: Path, rows: int, encoding: str, seed: int = 7) -> int:
    """Write a CSV with quotes, line ends within cells, empty cells and what the encoding has above ASCII.

    Returns:
        How many rows have no text.
    """
    chance = random.Random(seed)
    sentences = read_sentences(CHECKPOINT / "heldout.tsv")
    empty = 0
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(rows):
            text, kind = chance.choice(sentences), chance.random()
            if kind < 0.1:
                text = f'She said: "{text}", and\nleft, twice'
            elif kind < 0.13:
                text, empty = "", empty + 1
            elif kind < 0.2:
                text += " café “naïve” – Größe"
            elif kind < 0.25 and encoding != "cp1252":
                text += " 😀🎉"
            writer.writerow([number, text, "" if chance.random() < 0.3 else 'x;"y"'])
    return empty


def read_csv(path: Path, encoding: str) -> list[list[str]]:
    """Return all records."""
    with path.open(encoding=encoding, newline="") as file:
        return list(csv.reader(file))

"""Our own texts, for checkpoints that come without any: of all lengths, on what people write about.

They have no labels. What a model makes of them says nothing about its accuracy, but an artefact
must make the same of them as its reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.evaluation.data import Examples, load_examples
from export.evaluation.pair_data import load_pairs

HELDOUT = "heldout.tsv"
OWN_TEXTS = "the exporter's own sentences"
OWN_PAIRS = "the exporter's own pairs"
NEAREST, FURTHEST = 1, 12
_LONG = (1, 2, 5)
"""How often all sentences stand in the long texts."""
TEXTS_PER_QUERY, STRIDE, EVERY_LONG = 12, 23, 4

_OWN = (
    "This pizza is great!",
    "no",
    "I waited an hour for a cold coffee and nobody said sorry.",
    "The plot wanders, the jokes fall flat, and yet I could not stop smiling.",
    "It arrived on Tuesday.",
    "Not bad, not bad at all; in fact I ordered a second one for my sister.",
    "Ausgezeichnet 👍 — très bien, 素晴らしい!",
    "refund refund refund",
    "Can you tell me how to change the delivery address of my order?",
    "The council voted 7 to 2 to close the swimming pool at the end of the year.",
    "Shares fell sharply after the company warned that profits would halve.",
    "so proud of my little brother, he passed every exam!!!",
    "The battery lasts two days, which is more than the box promises.",
    "My account has been charged twice and the chat window closes by itself.",
    "An honest, quiet film about three people who cannot talk to each other.",
    "Do not buy this.",
    "It was fine, I suppose.",
    "What a waste of a brilliant cast.",
    "The hotel was clean, the staff were kind, and the view alone was worth the climb.",
    "I am furious, and I want to speak to somebody who can decide something.",
)


# Short ones, as people type them, so that a small model has room for a text beside each.
_QUERIES = (
    "pizza",
    "cold coffee",
    "how do I change the delivery address",
    "swimming pool closed",
    "profit warning",
    "passed every exam",
    "battery life",
    "charged twice",
    "film about three people",
    "a funny film",
    "hotel with a view",
    "complaint about staff",
    "refund",
    "when did it arrive",
    "schönes Ausflugsziel",
    "is it worth the money?",
    "wasted cast",
    "city council vote",
    "talk to a human",
    "sister's birthday present",
    "chat window closes",
    "shares fell",
    "no",
    "what is the capital of France",
)


def own_texts() -> tuple[str, ...]:
    """A few hundred texts: single sentences, pairs of them, and some near any model's limit."""
    pairs = (
        f"{first} {_OWN[(place + distance) % len(_OWN)]}"
        for distance in range(NEAREST, FURTHEST + 1)
        for place, first in enumerate(_OWN)
    )
    # Long texts are rare in any data set, and they are where padding and position ids go wrong.
    long = (" ".join(_OWN * times) for times in _LONG)
    return (*_OWN, *pairs, *long)


def own_pairs() -> Examples:
    """Each of our queries with TEXTS_PER_QUERY of our texts, of all lengths; the same ones every time."""
    texts = own_texts()
    short, long = texts[: -len(_LONG)], texts[-len(_LONG) :]
    queries: list[str] = []
    chosen: list[str] = []
    for number, query in enumerate(_QUERIES):
        first = number * len(short) // len(_QUERIES)
        # A stride that shares no factor with the number of texts meets none of them twice.
        places = [(first + STRIDE * step) % len(short) for step in range(TEXTS_PER_QUERY)]
        chosen += [short[place] for place in places]
        if number % EVERY_LONG == 0:
            chosen[-1] = long[number // EVERY_LONG % len(long)]
        queries += [query] * TEXTS_PER_QUERY
    return Examples(tuple(chosen), None, OWN_PAIRS, queries=tuple(queries))


def default_pairs(folder: Path) -> Examples:
    """The held-out pairs that lie in the checkpoint's folder, or else our own without labels.

    Raises:
        ExamplesError: the file is there but cannot be used.
    """
    file = folder / HELDOUT
    return load_pairs(file) if file.is_file() else own_pairs()


def default_examples(folder: Path, labels: Sequence[str], problem_type: str) -> Examples:
    """The held-out texts that lie in the checkpoint's folder, or else our own without labels.

    Raises:
        ExamplesError: the file is there but cannot be used.
    """
    file = folder / HELDOUT
    if file.is_file():
        return load_examples(file, labels, problem_type)
    return Examples(own_texts(), None, OWN_TEXTS)

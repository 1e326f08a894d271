"""A query, a text that answers it, and on which side of the split both stand."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Pair:
    """A query and the text that belongs to it.

    ``group`` is what the split goes by (a source package, or a word of WordNet): all that shares
    a group stands on one side. ``origin`` is ``debian``, ``sentence`` or ``wordnet``.
    """

    query: str
    text: str
    group: str
    origin: str

    @property
    def split(self) -> str:
        """``heldout``, ``dev`` or ``train``; see ``split_of``."""
        return split_of(self.group)


def split_of(group: str) -> str:
    """Split by a hash of the group: 12 % held-out, 3 % dev, the rest train."""
    bucket = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") % 100
    return "heldout" if bucket < 12 else "dev" if bucket < 15 else "train"


def words(text: str) -> list[str]:
    """Lower-case letters and digits, for comparisons that ignore punctuation."""
    return _WORD.findall(text.lower())


def contains(text: str, query: str) -> bool:
    """Whether the query's words stand in the text, one after the other."""
    return f" {' '.join(words(query))} " in f" {' '.join(words(text))} "

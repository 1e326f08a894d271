"""Texts that wait for the encoder, and which of them are computed together."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

GROUP_TEXTS = 16
GROUP_TOKENS = 256
"""Most computed tokens of a group: from about there on, a larger one is no faster a token."""
LONG_TOKENS = GROUP_TOKENS // 2
"""Longer texts are always alone in a group, and take by far the longest."""
LONG_EVERY = 4
"""While both wait, every so many groups one is of a long text: each costs as much as dozens of short ones."""
PADDING = 4
"""Most padding, in tokens, that one more text may add: a run by itself costs as much as about seven."""


def joins(count: int, width: int, length: int) -> bool:
    """Whether a text of ``length`` tokens may join ``count`` texts that are padded to ``width``."""
    grown = max(width, length)
    padding = width - length if grown == width else count * (grown - width)
    return count < GROUP_TEXTS and padding <= PADDING and (count + 1) * grown <= GROUP_TOKENS


def length_groups(lengths: list[int]) -> list[list[int]]:
    """Indices in groups of like length; all of them are at hand, so the longest comes first."""
    groups: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if groups and joins(len(groups[-1]), width, lengths[index]):
            groups[-1].append(index)
        else:
            groups.append([index])
            width = lengths[index]
    return groups


class Call:
    """A request of Triton: its texts run in any order and group, and its answer leaves as one."""

    def __init__(
        self,
        sender: Any,
        rows: Sequence[Sequence[int]],
        labels: int,
        types: Sequence[Sequence[int]] | None = None,
        counts: Any = None,
    ) -> None:
        """Take the response sender, the token ids and types of each text without padding, and their counts.

        ``counts`` INT32 [n, 1] are part of the answer where this step makes the tokens itself.
        """
        self.sender = sender
        self.rows = rows
        self.types = types
        self.counts = counts
        self.logits = np.empty((len(rows), labels), np.float32)
        self.left = len(rows)
        self.problem: str | None = None


Text = tuple[int, int, int, Call]
"""Length in tokens, order of arrival, place in its call, the call."""


class TextQueue:
    """Texts that wait, by length and by age; not safe for threads by itself."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_length: list[Text] = []
        self._by_age: tuple[deque[Text], deque[Text]] = (deque(), deque())
        """Short ones and long ones."""
        self._arrived = self._taken = 0

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, call: Call) -> None:
        """Add all texts of ``call``."""
        for place, row in enumerate(call.rows):
            text = (len(row), self._arrived, place, call)
            self._arrived += 1
            insort(self._by_length, text)
            self._by_age[len(row) > LONG_TOKENS].append(text)

    def take(self, limit: int) -> list[Text]:
        """Remove a text and up to ``limit`` - 1 others of like length; the shortest comes first.

        The text is the oldest of the short ones or, in its turn or if there are none, of the long ones.
        """
        texts = self._by_length
        first = self._oldest()
        last = first + 1
        while last - first < limit:
            count, width = last - first, texts[last - 1][0]
            # The padding that each neighbour costs: a shorter one pads itself, a longer one all others.
            neighbours = []
            if first:
                neighbours.append((width - texts[first - 1][0], first - 1))
            if last < len(texts):
                neighbours.append((count * (texts[last][0] - width), last))
            fitting = [near for near in neighbours if joins(count, width, texts[near[1]][0])]
            if not fitting:
                break
            if min(fitting)[1] == last:
                last += 1
            else:
                first -= 1
        taken = texts[first:last]
        del texts[first:last]
        return taken

    def _oldest(self) -> int:
        """Where the oldest text stands; older ones that a group has taken are forgotten on the way."""
        self._taken += 1
        short, long = self._by_age
        for ages in (long, short) if self._taken % LONG_EVERY == 0 else (short, long):
            while ages:
                oldest = ages.popleft()
                at = bisect_left(self._by_length, oldest)
                if at < len(self._by_length) and self._by_length[at] is oldest:
                    return at
        raise IndexError("no text waits")

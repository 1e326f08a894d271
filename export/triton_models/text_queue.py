"""Texts that wait for the encoder, and which of them are computed together."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LONG_EVERY = 4
"""While both wait, every so many groups one is of a long text: each costs as much as dozens of short ones."""


@dataclass(frozen=True)
class GroupPolicy:
    """Which texts are computed together on a CPU: few, and of almost one length.

    Attributes:
        texts: most in a group.
        tokens: most computed tokens of a group; from about there on, a larger one is no faster a token.
        padding: most padding, in tokens, that one more text may add: a run by itself costs as much as
            about seven.
    """

    texts: int = 16
    tokens: int = 256
    padding: int = 4

    @property
    def long_tokens(self) -> int:
        """Longer texts are always alone in a group, and take by far the longest."""
        return self.tokens // 2

    def width(self, length: int) -> int:
        """To how many tokens a group is padded whose longest text has ``length``."""
        return length

    def joins(self, count: int, width: int, length: int, total: int) -> bool:
        """Whether a text may join a group.

        Args:
            count: texts in the group.
            width: tokens of the longest of them.
            length: tokens of the text.
            total: tokens of all texts in the group.
        """
        grown = max(width, length)
        padding = width - length if grown == width else count * (grown - width)
        return count < self.texts and padding <= self.padding and (count + 1) * grown <= self.tokens


@dataclass(frozen=True)
class GpuGroupPolicy(GroupPolicy):
    """Which texts are computed together on a GPU: many, whose padding costs less than one more run.

    Nothing of it was measured on a GPU.

    Attributes:
        texts: most in a group.
        tokens: most computed tokens of a group.
        padding: tokens of padding that any group may have: about what starting one more run costs.
        multiple: groups are padded to a multiple of it, which matrix units want.
        longest: most tokens that the model takes.
    """

    texts: int = 64
    tokens: int = 16384
    padding: int = 1024
    multiple: int = 8
    longest: int = 512

    def width(self, length: int) -> int:
        """The next multiple, but no more than the model takes."""
        return max(length, min(-(-length // self.multiple) * self.multiple, self.longest))

    def joins(self, count: int, width: int, length: int, total: int) -> bool:
        """Whether the group stays within its budgets; beyond ``padding``, an eighth of it may be padding."""
        computed = (count + 1) * self.width(max(width, length))
        allowed = self.padding + computed // 8
        return count < self.texts and computed <= self.tokens and computed - total - length <= allowed


CPU = GroupPolicy()


def length_groups(lengths: list[int], policy: GroupPolicy = CPU) -> list[list[int]]:
    """Indices in groups of like length; all of them are at hand, so the longest comes first."""
    groups: list[list[int]] = []
    width = total = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if groups and policy.joins(len(groups[-1]), width, lengths[index], total):
            groups[-1].append(index)
            total += lengths[index]
        else:
            groups.append([index])
            width = total = lengths[index]
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

    def __init__(self, policy: GroupPolicy = CPU) -> None:
        """Start empty."""
        self._policy = policy
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
            self._by_age[len(row) > self._policy.long_tokens].append(text)

    def take(self, limit: int) -> list[Text]:
        """Remove a text and up to ``limit`` - 1 others of like length; the shortest comes first.

        The text is the oldest of the short ones or, in its turn or if there are none, of the long ones.
        """
        texts, joins = self._by_length, self._policy.joins
        first = self._oldest()
        last, total = first + 1, texts[first][0]
        while last - first < limit:
            count, width = last - first, texts[last - 1][0]
            # The padding that each neighbour costs: a shorter one pads itself, a longer one all others.
            neighbours = []
            if first:
                neighbours.append((width - texts[first - 1][0], first - 1))
            if last < len(texts):
                neighbours.append((count * (texts[last][0] - width), last))
            fitting = [near for near in neighbours if joins(count, width, texts[near[1]][0], total)]
            if not fitting:
                break
            nearest = min(fitting)[1]
            total += texts[nearest][0]
            if nearest == last:
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

"""How much of what the encoder computes is text, and how much is padding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

Grouping = Callable[[list[int]], list[list[int]]]
"""The encoder's own: lengths of a batch's texts → their places, in groups padded to their longest."""


def padding_efficiency(sizes: Mapping[int, int], lengths: Sequence[int], grouping: Grouping) -> float:
    """Real tokens as a share of computed ones, 0…1.

    Args:
        sizes: how often the encoder was given a batch of so many texts, as Triton counted.
        lengths: tokens of the texts that were asked, in the order of asking.
        grouping: how the encoder splits a batch.
    """
    real = computed = 0.0
    walk = itertools.cycle(lengths)
    for size, count in sizes.items():
        # The mean over the whole mix is what counts; a second pass adds nothing.
        distinct = min(count, max(1, len(lengths) // size))
        found = [_tokens(list(itertools.islice(walk, size)), grouping) for _ in range(distinct)]
        real += count * sum(part for part, _ in found) / distinct
        computed += count * sum(whole for _, whole in found) / distinct
    return real / computed if computed else float("nan")


def _tokens(lengths: list[int], grouping: Grouping) -> tuple[int, int]:
    groups = grouping(lengths)
    computed = sum(len(group) * max(lengths[place] for place in group) for group in groups)
    return sum(lengths), computed

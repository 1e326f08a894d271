"""Optimisation profiles: which shapes a plan is built and tuned for.

The tokenizer pads to a length bucket, so a batch has exactly one of these lengths. Each
bucket gets a profile of its own with the length fixed: a dynamic length costs speed, a
dynamic batch does not, and Triton picks the profile that fits. A length that is no bucket is
refused by Triton rather than served slowly and unmeasured.
"""

from __future__ import annotations

from dataclasses import dataclass

from export.errors import ExportError
from export.spec import LENGTH_BUCKETS, MAX_BATCH_SIZE

# A batch grows until the GPU has work for its whole width, so short texts meet in larger
# batches: kernels are tuned for batches of about the same number of tokens.
OPT_TOKENS = 1024

Shape = tuple[int, int]


@dataclass(frozen=True)
class Profile:
    """Smallest, tuned-for and largest shape [batch, tokens] of both inputs."""

    min: Shape
    opt: Shape
    max: Shape


def padded_lengths(max_tokens: int) -> tuple[int, ...]:
    """The lengths that texts of a model are padded to: the buckets below its limit, and the limit.

    Raises:
        ExportError: the limit is not positive.
    """
    if max_tokens < 1:
        raise ExportError(f"a model with a limit of {max_tokens} tokens cannot be served.")
    return (*(bucket for bucket in LENGTH_BUCKETS if bucket < max_tokens), max_tokens)


def profiles(max_tokens: int, max_batch: int = MAX_BATCH_SIZE) -> tuple[Profile, ...]:
    """One profile per padded length, shortest first."""
    found = []
    for length in padded_lengths(max_tokens):
        batch = min(max_batch, max(1, OPT_TOKENS // length))
        found.append(Profile((1, length), (batch, length), (max_batch, length)))
    return tuple(found)

"""Optimisation profiles: which shapes a plan is built and tuned for.

The tokenizer pads to a length bucket, so a batch has exactly one of these lengths. Each
bucket gets a profile of its own with the length fixed: a dynamic length costs speed, a
dynamic batch does not, and Triton picks the profile that fits. A length that is no bucket is
refused by Triton rather than served slowly and unmeasured.
"""

from __future__ import annotations

from dataclasses import dataclass

from export.spec import MAX_BATCH_SIZE, length_buckets

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


def profiles(max_tokens: int, max_batch: int = MAX_BATCH_SIZE) -> tuple[Profile, ...]:
    """One profile per padded length, shortest first."""
    found = []
    for length in length_buckets(max_tokens):
        batch = min(max_batch, max(1, OPT_TOKENS // length))
        found.append(Profile((1, length), (batch, length), (max_batch, length)))
    return tuple(found)

"""What can be evaluated: anything that turns padded token ids into logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from export.artefact import Artefact, Logits
from export.rows import Ids, pad, pad_types
from export.triton_models.text_queue import length_groups

Rows = Sequence[Sequence[int]]


class Runner(Protocol):
    """A loaded model."""

    def run(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """Logits FP32 [B, labels] of ids, mask and token types INT64 [B, S].

        The mask is 1 on tokens, 0 on padding. Only rows of a model that reads types have any.
        """


@dataclass(frozen=True)
class Candidate:
    """A model that can be loaded.

    precision: selects the limits of the gate. size: bytes on disk. open: loads it for the
    given number of threads; called several times, as loading is timed too.
    """

    precision: str
    size: int
    open: Callable[[int], Runner]


def onnx_candidate(path: Path, labels: int, precision: str) -> Candidate:
    """An ONNX file with the exporter's own inputs and output."""
    return Candidate(precision, path.stat().st_size, lambda threads: Artefact(path, labels, threads))


def run_rows(runner: Runner, rows: Rows) -> Logits:
    """Logits FP32 [B, labels] of token ids padded into one batch."""
    return runner.run(*pad(rows), pad_types(rows))


def run_grouped(runner: Runner, rows: Rows, advance: Callable[[int, int], None]) -> Logits:
    """Logits FP32 [N, labels] of all rows, in the groups of like length that the served encoder makes."""
    groups = length_groups([len(row) for row in rows])
    parts = []
    done = 0
    for group in groups:
        parts.append(run_rows(runner, [rows[index] for index in group]))
        done += len(group)
        advance(done, len(rows))
    found = np.concatenate(parts)
    ordered = np.empty_like(found)
    ordered[np.concatenate(groups)] = found
    return ordered

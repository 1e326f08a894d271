"""What can go wrong while exporting.

ExportError
├── CheckpointError   the source is missing, damaged, or not a classifier we can write
├── ExamplesError     the evaluation file cannot be used
├── VerificationError an artefact does not compute what the reference computes
└── PublishError      the repository could not be replaced; it is as it was
"""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ExportError(Exception):
    """One sentence for the user at the terminal; exit code 2 unless a subclass sets another."""

    exit_code = 2


class CheckpointError(ExportError):
    """The checkpoint cannot be read."""


class ExamplesError(ExportError):
    """The texts to evaluate on cannot be read, or their labels are not the model's."""


class VerificationError(ExportError):
    """An artefact failed its comparison; nothing was published."""

    exit_code = 3


class PublishError(ExportError):
    """The model repository could not be replaced."""


def first_line(error: Exception) -> str:
    """The message of another library's error, as a part of a sentence; its type if the message is empty."""
    said = _COLOUR.sub("", str(error)).strip() or type(error).__name__
    return said.splitlines()[0].rstrip(".: ")

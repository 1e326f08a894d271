"""What can go wrong while exporting.

ExportError
├── CheckpointError   the source is missing, damaged, or not a classifier we can write
├── ExamplesError     the evaluation file cannot be used
├── VerificationError an artefact does not compute what the reference computes
└── PublishError      the repository could not be replaced; it is as it was
"""

from __future__ import annotations


class ExportError(Exception):
    """One clear sentence for the person at the terminal; exit code 2 unless a class says otherwise."""

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

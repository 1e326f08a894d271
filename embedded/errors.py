"""The errors of this package."""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded Triton cannot run here; the message is one sentence with the remedy."""


class NotExportedError(EmbeddedError):
    """The repository holds no exported model."""


class EndedWhileStarting(EmbeddedError):
    """Triton ended before it was ready, which the next attempt may not."""


class GivenUp(EmbeddedError):
    """The start was not wanted any more."""


class PortInUse(EmbeddedError):
    """Somebody else listens where Triton should."""

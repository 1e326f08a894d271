"""The errors of this package."""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded Triton cannot run here; the message includes the remedy."""


class NotExportedError(EmbeddedError):
    """The repository holds no exported model."""


class EndedWhileStarting(EmbeddedError):
    """Triton ended before it was ready, which the next attempt may not."""


class GivenUp(EmbeddedError):
    """The start was abandoned on request."""


class PortInUse(EmbeddedError):
    """Another process listens on the port."""

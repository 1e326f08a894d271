"""The one error of this package."""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded Triton cannot run here; the message is one sentence with the remedy."""

"""Texts of errors without what only the Workers AI API puts around them."""

from __future__ import annotations

from gateway.domain.errors import BadInput, TritonflareError
from gateway.refusals import sentence_of


def describe(error: TritonflareError) -> str:
    """Return the text of an error."""
    if isinstance(error, BadInput):
        # A key of the body is a path there.
        return error.description.removeprefix("Error: ").replace("'/", "'")
    return sentence_of(error, "header")

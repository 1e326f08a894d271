"""Texts of errors without what only the Workers AI API puts around them."""

from __future__ import annotations

from gateway.domain.errors import BadInput, QueryTooLong, TritonflareError
from gateway.refusals import sentence_of


def describe(error: TritonflareError, too_long: str) -> str:
    """Return the text of an error.

    Args:
        error: to describe.
        too_long: what is said of a query that is too long, with the keys of the API.
    """
    if isinstance(error, QueryTooLong):
        return f"{too_long}: the model reads {error.max_tokens} tokens"
    if isinstance(error, BadInput):
        # A key of the body is a path there.
        return error.description.removeprefix("Error: ").replace("'/", "'")
    return sentence_of(error, "header")

"""Texts of errors with the names that requests have here."""

from __future__ import annotations

from gateway.domain.errors import QueryTooLong, TritonflareError
from gateway.inference_protocol.inputs import QUERY, TEXT
from gateway.refusals import sentence_of


def describe(error: TritonflareError, carrier: str) -> str:
    """Return the text of an error; see `sentence_of` for ``carrier``."""
    if isinstance(error, QueryTooLong):
        room = f"an element of input '{QUERY}' leaves no room for that of input '{TEXT}'"
        return f"Bad input: {room}: the model reads {error.max_tokens} tokens"
    return sentence_of(error, carrier)

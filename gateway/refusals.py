"""Sentences of errors whose texts in the Workers AI API name what other protocols do not use."""

from __future__ import annotations

from gateway.domain.errors import (
    ForeignAccount,
    MalformedCredentials,
    MissingCredentials,
    TritonflareError,
    UnknownToken,
)

_SENTENCES: dict[type[TritonflareError], str] = {
    MissingCredentials: "The {carrier} 'authorization: Bearer <token>' is missing",
    MalformedCredentials: "The {carrier} 'authorization' is not of the form 'Bearer <token>'",
    UnknownToken: "The token is unknown or has expired",
    ForeignAccount: "The token is not valid for this account",
}


def sentence_of(error: TritonflareError, carrier: str) -> str:
    """Return the text of an error.

    Args:
        error: to describe.
        carrier: what holds the token: ``header`` or ``metadata``.
    """
    if isinstance(error, MalformedCredentials) and "Authorization" not in error.headers:
        return error.message
    sentence = _SENTENCES.get(type(error))
    return error.message if sentence is None else sentence.format(carrier=carrier)

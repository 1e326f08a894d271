"""The sentences of errors in the Open Inference Protocol."""

from __future__ import annotations

import pytest

from gateway.domain import errors
from gateway.refusals import sentence_of


@pytest.mark.parametrize("carrier", ["header", "metadata"])
def test_what_is_wrong_with_a_token_is_named(carrier: str) -> None:
    missing = f"The {carrier} 'authorization: Bearer <token>' is missing"
    assert sentence_of(errors.MissingCredentials(), carrier) == missing
    malformed = f"The {carrier} 'authorization' is not of the form 'Bearer <token>'"
    assert sentence_of(errors.MalformedCredentials("Authorization"), carrier) == malformed
    assert sentence_of(errors.UnknownToken(), carrier) == "The token is unknown or has expired"
    assert sentence_of(errors.ForeignAccount(), carrier) == "The token is not valid for this account"


@pytest.mark.parametrize(
    "error", [errors.MalformedCredentials("X-Auth-Key"), errors.BadInput("x"), errors.Overloaded()]
)
def test_other_errors_keep_their_texts(error: errors.TritonflareError) -> None:
    assert sentence_of(error, "header") == error.message

"""Parameters of requests, inputs and outputs (the extensions), and how many of each may come."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.domain.errors import BadInput

_SHARED_MEMORY = "shared_memory_region"
_SEQUENCE = "sequence_id"
_CLASSIFICATION = "classification"
SUPPORTED = (_SHARED_MEMORY, _SEQUENCE, _CLASSIFICATION)
"""Parameters that are read here; transports have further ones."""
_MOST_TENSORS = 16
"""Inputs or outputs of a request: more than any model has."""


def check_counts(inputs: int, outputs: int) -> None:
    """Refuse a request with senselessly many inputs or outputs before it costs the time to read them.

    Raises:
        BadInput: there are too many.
    """
    if max(inputs, outputs) > _MOST_TENSORS:
        raise BadInput(
            f"there are {inputs} inputs and {outputs} outputs; {_MOST_TENSORS} of each are allowed"
        )


def check_parameters(parameters: Mapping[str, object]) -> None:
    """Refuse the extensions that would change the answer and are not supported; ignore all others.

    Raises:
        BadInput: contents in shared memory, or a request of a sequence.
    """
    if _SHARED_MEMORY in parameters:
        raise BadInput("shared memory is not supported; send and receive the contents")
    if parameters.get(_SEQUENCE) not in (None, 0, "", "0"):
        raise BadInput("sequences are not supported: every request is answered for itself")


def class_count(output: str, parameters: Mapping[str, object]) -> int:
    """Return the ``classification`` parameter of an output; 0 if it has none.

    Raises:
        BadInput: it is not a whole number.
    """
    count = parameters.get(_CLASSIFICATION, 0)
    if not isinstance(count, int) or isinstance(count, bool):
        raise BadInput(f"parameter 'classification' of output '{output[:100]}' must be a whole number")
    return count

"""The inputs of a model: ``TEXT``, and a reranker's ``QUERY``, BYTES ``[n]`` or ``[n, 1]``, UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.domain.errors import BadInput, without_frames
from gateway.domain.requests import (
    BatchCall,
    BatchRequest,
    Call,
    PairRequest,
    SingleCall,
    TaskRequest,
    TextRequest,
)
from gateway.domain.tasks import Task
from gateway.inference_protocol.tensors import InputTensor

TEXT, QUERY = "TEXT", "QUERY"
INPUTS = {Task.CLASSIFICATION: (TEXT,), Task.RERANK: (QUERY, TEXT)}
"""What a model of a task reads; of several inputs, the elements at one place belong together."""


def read_inputs(inputs: Sequence[InputTensor], task: Task, max_texts: int) -> Call:
    """Return the texts or pairs of a request, or the error of the first text that is not valid.

    As in the v4 API, that error takes the place of a text, so that the request counts in the account's rate.

    Args:
        inputs: of the request.
        task: of the model.
        max_texts: how many texts or pairs a request may have.

    Raises:
        BadInput: the inputs are not those of the task, or the datatype, shape or number of elements of one is
            wrong.
    """
    tensors = _by_name(inputs, INPUTS[task])
    for name, tensor in tensors.items():
        if tensor.datatype != "BYTES":
            raise BadInput(f"input '{name}' must have the datatype BYTES, not '{tensor.datatype[:100]}'")
        _check_shape(name, tensor.shape, max_texts)
        if len(tensor.elements) != tensor.shape[0]:
            raise BadInput(
                f"input '{name}' has {len(tensor.elements)} elements, but its shape {list(tensor.shape)} "
                f"needs {tensor.shape[0]}"
            )
    if len({tensor.shape[0] for tensor in tensors.values()}) != 1:
        raise BadInput(f"the inputs {_listed(tensors)} must have the same number of elements")
    try:
        requests = _requests(tensors, task)
    except BadInput as exc:
        return SingleCall(without_frames(exc))
    if len(requests) == 1:
        return SingleCall(requests[0])
    return BatchCall([BatchRequest(None, request) for request in requests])


def _by_name(inputs: Sequence[InputTensor], names: Sequence[str]) -> dict[str, InputTensor]:
    """Return the inputs in the order of ``names``."""
    given = {tensor.name: tensor for tensor in inputs}
    if len(given) != len(inputs) or given.keys() != set(names):
        found = ", ".join(f"'{tensor.name[:100]}'" for tensor in inputs[:5]) or "none"
        kind = "the only input must be" if len(names) == 1 else "the inputs must be"
        raise BadInput(f"{kind} {_listed(names)}, but the request has {found}")
    return {name: given[name] for name in names}


def _requests(tensors: dict[str, InputTensor], task: Task) -> list[TaskRequest]:
    texts = {
        name: [_text(element, place, name) for place, element in enumerate(tensor.elements)]
        for name, tensor in tensors.items()
    }
    if task is Task.RERANK:
        return [PairRequest(query, text) for query, text in zip(texts[QUERY], texts[TEXT], strict=True)]
    return [TextRequest(text) for text in texts[TEXT]]


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _check_shape(name: str, shape: tuple[int, ...], max_texts: int) -> None:
    required = f"input '{name}' must have the shape [n] or [n, 1]"
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise BadInput(f"{required}, not {list(shape[:8])}")
    if shape[0] < 1:
        raise BadInput(f"{required} with at least one text, not {list(shape)}")
    if shape[0] > max_texts:
        raise BadInput(f"input '{name}' has {shape[0]} texts; a request may have {max_texts}")


def _text(element: object, place: int, name: str) -> str:
    if isinstance(element, bytes):
        try:
            element = element.decode()
        except UnicodeDecodeError:
            raise BadInput(f"element {place} of input '{name}' is not valid UTF-8") from None
    if not isinstance(element, str):
        raise BadInput(f"element {place} of input '{name}' is not a string")
    if not element:
        raise BadInput(f"element {place} of input '{name}' is empty")
    return element

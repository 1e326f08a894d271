"""The input of a text classifier: ``TEXT`` BYTES ``[n]`` or ``[n, 1]``, UTF-8."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.domain.errors import BadInput, without_frames
from gateway.domain.validate import BatchCall, BatchText, TextCall
from gateway.inference_protocol.tensors import InputTensor

TEXT = "TEXT"
_SHAPE = f"input '{TEXT}' must have the shape [n] or [n, 1]"


def read_texts(inputs: Sequence[InputTensor], max_texts: int) -> TextCall | BatchCall:
    """Return the texts of a request, or the error of the first text that is not valid.

    As in the v4 API, that error takes the place of a text, so that the request counts in the account's rate.

    Args:
        inputs: of the request.
        max_texts: how many a request may have.

    Raises:
        BadInput: there is not exactly the input TEXT, or its datatype, shape or number of elements is wrong.
    """
    if len(inputs) != 1 or inputs[0].name != TEXT:
        names = ", ".join(f"'{tensor.name[:100]}'" for tensor in inputs[:5]) or "none"
        raise BadInput(f"the only input must be '{TEXT}', but the request has {names}")
    tensor = inputs[0]
    if tensor.datatype != "BYTES":
        raise BadInput(f"input '{TEXT}' must have the datatype BYTES, not '{tensor.datatype[:100]}'")
    _check_shape(tensor.shape, max_texts)
    if len(tensor.elements) != tensor.shape[0]:
        raise BadInput(
            f"input '{TEXT}' has {len(tensor.elements)} elements, but its shape {list(tensor.shape)} "
            f"needs {tensor.shape[0]}"
        )
    try:
        texts = [_text(element, place) for place, element in enumerate(tensor.elements)]
    except BadInput as exc:
        return TextCall(without_frames(exc))
    if len(texts) == 1:
        return TextCall(texts[0])
    return BatchCall([BatchText(None, text) for text in texts])


def _check_shape(shape: tuple[int, ...], max_texts: int) -> None:
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise BadInput(f"{_SHAPE}, not {list(shape[:8])}")
    if shape[0] < 1:
        raise BadInput(f"{_SHAPE} with at least one text, not {list(shape)}")
    if shape[0] > max_texts:
        raise BadInput(f"input '{TEXT}' has {shape[0]} texts; a request may have {max_texts}")


def _text(element: object, place: int) -> str:
    if isinstance(element, bytes):
        try:
            element = element.decode()
        except UnicodeDecodeError:
            raise BadInput(f"element {place} of input '{TEXT}' is not valid UTF-8") from None
    if not isinstance(element, str):
        raise BadInput(f"element {place} of input '{TEXT}' is not a string")
    if not element:
        raise BadInput(f"element {place} of input '{TEXT}' is empty")
    return element

"""The tensor form of ``@cloudflare/ai`` 1.0: inputs are named tensors, as an inference server takes them."""

from __future__ import annotations

from gateway.domain.errors import BadInput

_TEXT_TENSOR = "input_text"


def inputs_of(payload: object) -> dict[str, object]:
    """Return the inputs of ``{"input":[{"type":"str","shape":[1],"name":"input_text","value":["…"]}]}``.

    They come in the form of the newer bindings, ``{"text": "…"}``, and are empty where there is no such
    tensor, so that the same validation gives the same sentences.

    Raises:
        BadInput: the tensor holds anything but one value.
    """
    tensors = payload.get("input") if isinstance(payload, dict) else None
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, dict) and tensor.get("name") == _TEXT_TENSOR:
            match tensor.get("value"):
                case [text]:
                    return {"text": text}
                case _:
                    raise BadInput(f"Error: tensor '{_TEXT_TENSOR}' must hold one value")
    return {}

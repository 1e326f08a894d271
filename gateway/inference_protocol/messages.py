"""A request for inference and its response, as both transports of the protocol understand them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.inference_protocol.tensors import InputTensor, OutputTensor, RequestedOutput


@dataclass(frozen=True, slots=True)
class InferRequest:
    """ModelInferRequest, or the body of ``…/infer``."""

    model: str
    version: str
    """Empty for the one that is served."""
    id: str
    """The client's own name for it, which the response repeats."""
    inputs: Sequence[InputTensor]
    outputs: Sequence[RequestedOutput] = ()
    """Empty for all."""


@dataclass(frozen=True, slots=True)
class InferResponse:
    """ModelInferResponse."""

    model: str
    """As the request named it."""
    version: str
    id: str
    outputs: Sequence[OutputTensor]

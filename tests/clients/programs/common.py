"""What the client programs share: the server to call comes as JSON on standard input, results go out as JSON.

They run in the environment of `make clients` and import nothing of tritonflare.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

OUTPUTS = ("logits", "probabilities", "label", "token_count")


@dataclass(frozen=True)
class Target:
    """The server, and what to ask it."""

    grpc: str
    """host:port"""
    http: str
    """host:port"""
    token: str
    model: str
    texts: list[str]
    authority: str = ""
    """File of the certificate authority; empty without TLS."""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


Part = Callable[[Target], Any]


def run(parts: Mapping[str, Part]) -> None:
    """Run the parts that the command line names, or all; print their results by name."""
    target = Target(**json.load(sys.stdin))
    results = {name: _result(parts[name], target) for name in sys.argv[1:] or parts}
    json.dump(results, sys.stdout)


def _result(part: Part, target: Target) -> Any:
    result = part(target)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def column(texts: list[str]) -> npt.NDArray[np.object_]:
    """The texts as BYTES ``[n, 1]``."""
    return np.array([[text.encode()] for text in texts], dtype=np.object_)


def tensors(arrays: Mapping[str, npt.NDArray[Any] | None]) -> dict[str, Any]:
    """Values, datatype and shape of each output that is there; FP32 stays exact."""
    return {
        name: {"shape": list(array.shape), "dtype": array.dtype.name, "values": _plain(array)}
        for name, array in arrays.items()
        if array is not None
    }


def _plain(array: npt.NDArray[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]

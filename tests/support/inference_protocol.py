"""Requests of the Open Inference Protocol over HTTP, made by hand."""

from __future__ import annotations

import json
import struct
from typing import Any
from urllib.parse import quote

from tests.support.fake_triton import SST2
from tests.support.harness import Answer, Client

MODEL = f"/v2/models/{SST2}"
NAMES = (SST2, SST2.replace("/", "--"), "sst2")
"""The names of the fake Triton's model: public, without slashes, of the ensemble."""


def text_input(*texts: object, **changes: Any) -> dict[str, Any]:
    """The input TEXT with its data in JSON."""
    return {"name": "TEXT", "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)} | changes


def request(*texts: object, **more: Any) -> dict[str, Any]:
    """The body of a request for inference."""
    return {"inputs": [text_input(*texts)]} | more


def raw_texts(*texts: bytes) -> bytes:
    """The raw contents of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary_request(*texts: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request whose input is binary data."""
    raw = raw_texts(*texts)
    tensor = text_input(*texts, parameters={"binary_data_size": len(raw)})
    del tensor["data"]
    header = json.dumps({"inputs": [tensor]} | more).encode()
    return header + raw, {"Inference-Header-Content-Length": str(len(header))}


async def infer(client: Client, body: object, path: str = f"{MODEL}/infer", **headers: str) -> Answer:
    """Send a request for inference; underscores in names of headers become hyphens."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.send("POST", path, sent, client.headers | named)


def paths_of(name: str) -> set[str]:
    """The ways to write a model's name in a path."""
    return {f"/v2/models/{quote(name, safe=safe)}" for safe in ("", "/", "/@")}


def outputs(answer: Answer) -> dict[str, Any]:
    """The data of each output of a successful answer in JSON."""
    if answer.status != 200:
        raise AssertionError(answer)
    return {output["name"]: output.get("data") for output in answer.json["outputs"]}


def check_error(answer: Answer, status: int, message: str) -> None:
    """Check that an answer is an error in the protocol's form."""
    if (answer.status, answer.json) != (status, {"error": message}):
        raise AssertionError(answer)

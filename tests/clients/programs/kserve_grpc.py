"""KServe's gRPC client."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

from tests.clients.programs.common import OUTPUTS, Target, column, run, tensors


def request(target: Target, texts: list[str], *, raw: bool = True, **options: Any) -> InferRequest:
    """The texts in raw contents or, typed, in ``contents``."""
    tensor = InferInput("TEXT", [len(texts), 1], "BYTES")
    if raw:
        tensor.set_data_from_numpy(column(texts))
    else:
        tensor.data = list(texts)
    return InferRequest(target.model, [tensor], **options)


def decoded(response: Any) -> dict[str, Any]:
    """The outputs; strings come as bytes or as text, after the protocol."""
    found = {output.name: output.as_numpy() for output in response.outputs}
    return tensors({name: found.get(name) for name in OUTPUTS})


def connect(target: Target) -> Any:
    if target.authority:
        return InferenceGRPCClient(target.grpc, use_ssl=True, root_certificates=target.authority)
    return InferenceGRPCClient(target.grpc)


def headers(target: Target) -> tuple[tuple[str, str], ...]:
    return tuple(target.headers.items())


async def scores(target: Target) -> Any:
    """Each text in a request of its own, all at once, raw and typed in turn."""
    async with connect(target) as client:
        answers = await asyncio.gather(
            *(
                client.infer(request(target, [text], raw=place % 2 == 0), headers=headers(target))
                for place, text in enumerate(target.texts)
            )
        )
    return [decoded(answer) for answer in answers]


async def batch(target: Target) -> Any:
    async with connect(target) as client:
        answer = await client.infer(
            request(target, target.texts, request_id="request-7"), headers=headers(target)
        )
    return {"id": answer.id, "model": answer.model_name, "outputs": decoded(answer)}


async def health(target: Target) -> Any:
    async with connect(target) as client:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model ready": await client.is_model_ready(target.model, headers=headers(target)),
        }


async def refused(target: Target) -> Any:
    """Code and message of what ends with an error."""
    good = request(target, ["good"])
    wide = InferInput("TEXT", [1, 2], "BYTES")
    wide.set_data_from_numpy(np.array([[b"a", b"b"]], dtype=np.object_))
    calls: dict[str, dict[str, Any]] = {
        "no token": {"infer_request": good},
        "wrong token": {"infer_request": good, "headers": (("authorization", "Bearer wrong"),)},
        "unknown model": {
            "infer_request": InferRequest("no-such-model", good.inputs),
            "headers": headers(target),
        },
        "wrong shape": {"infer_request": InferRequest(target.model, [wide]), "headers": headers(target)},
    }
    outcomes = {}
    async with connect(target) as client:
        for name, call in calls.items():
            try:
                await client.infer(**call)
                outcomes[name] = ["OK", ""]
            except grpc.aio.AioRpcError as error:
                outcomes[name] = [error.code().name, error.details() or ""]
    return outcomes


if __name__ == "__main__":
    run({"scores": scores, "batch": batch, "health": health, "refused": refused})

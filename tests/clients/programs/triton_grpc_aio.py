"""tritonclient.grpc.aio: many texts at once, and a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import tritonclient.grpc.aio as triton

from tests.clients.programs.common import Target, run
from tests.clients.programs.triton_grpc import decoded, infer, text_input


async def scores(target: Target) -> Any:
    """Each text in a request of its own, all at once."""
    async with triton.InferenceServerClient(target.grpc) as client:
        answers = await asyncio.gather(*(infer(client, target, [text]) for text in target.texts))
    return [decoded(answer) for answer in answers]


async def stream(target: Target) -> Any:
    """Each text in a message of one stream; answers by the ids of the requests."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for place, text in enumerate(target.texts):
            yield {"model_name": target.model, "inputs": [text_input([text])], "request_id": str(place)}

    answers: dict[int, Any] = {}
    async with triton.InferenceServerClient(target.grpc) as client:
        async for result, error in client.stream_infer(requests(), headers=target.headers):
            if error is not None:
                raise error
            answers[int(result.get_response().id)] = decoded(result)
    return [answers[place] for place in range(len(target.texts))]


if __name__ == "__main__":
    run({"scores": scores, "stream": stream})

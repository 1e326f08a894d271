"""KServe's REST client."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from kserve import InferenceRESTClient, RESTConfig

from tests.clients.programs.common import Target, run
from tests.clients.programs.kserve_grpc import decoded, request


def connect() -> Any:
    return InferenceRESTClient(RESTConfig(protocol="v2"))


async def infer(client: Any, target: Target, texts: list[str], **options: Any) -> Any:
    return await client.infer(
        f"http://{target.http}",
        request(target, texts, **options),
        model_name=target.model,
        headers=dict(target.headers),
    )


async def scores(target: Target) -> Any:
    """Each text in a request of its own, all at once, binary and JSON in turn."""
    async with connect() as client:
        answers = await asyncio.gather(
            *(infer(client, target, [text], raw=place % 2 == 0) for place, text in enumerate(target.texts))
        )
    return [decoded(answer) for answer in answers]


async def batch(target: Target) -> Any:
    async with connect() as client:
        answer = await infer(client, target, target.texts, request_id="request-7")
    return {"id": answer.id, "model": answer.model_name, "outputs": decoded(answer)}


async def health(target: Target) -> Any:
    url = f"http://{target.http}"
    async with connect() as client:
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model ready": await client.is_model_ready(url, target.model, headers=target.headers),
        }


async def refused(target: Target) -> Any:
    """Status and message of what ends with an error."""
    outcomes = {}
    async with connect() as client:
        for name, model, sent in (
            ("no token", target.model, {}),
            ("wrong token", target.model, {"authorization": "Bearer wrong"}),
            ("unknown model", "no-such-model", target.headers),
        ):
            try:
                await client.infer(
                    f"http://{target.http}", request(target, ["good"]), model_name=model, headers=dict(sent)
                )
                outcomes[name] = ["OK", ""]
            except httpx.HTTPStatusError as error:
                outcomes[name] = [str(error.response.status_code), str(error)]
    return outcomes


if __name__ == "__main__":
    run({"scores": scores, "batch": batch, "health": health, "refused": refused})

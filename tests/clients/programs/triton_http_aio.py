"""tritonclient.http.aio: many texts at once."""

from __future__ import annotations

import asyncio
from typing import Any

import tritonclient.http.aio as triton

from tests.clients.programs.common import Target, run
from tests.clients.programs.triton_http import decoded, infer, outputs


async def scores(target: Target) -> Any:
    """Each text in a request of its own, all at once; binary and JSON in turn."""
    async with triton.InferenceServerClient(target.http) as client:
        answers = await asyncio.gather(
            *(
                infer(client, target, [text], binary=place % 2 == 0, outputs=outputs(binary=place % 3 == 0))
                for place, text in enumerate(target.texts)
            )
        )
    return [decoded(answer) for answer in answers]


if __name__ == "__main__":
    run({"scores": scores})

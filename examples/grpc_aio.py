"""Classify many texts at once over gRPC, with asyncio: python grpc_aio.py ["a text" …].

The gateway puts texts that wait at the same time together, so it needs no batches from its clients.
"""

import asyncio
import os
import sys

import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

if not os.environ.get("TOKEN"):
    sys.exit("Set TOKEN: see README.md in this folder.")

ADDRESS = os.environ.get("GRPC_ADDRESS", "127.0.0.1:8001")
HEADERS = {"authorization": f"Bearer {os.environ['TOKEN']}"}
MODEL = "@cf/huggingface/distilbert-sst-2-int8"
AT_ONCE = 64


async def classify_all(texts: list[str]) -> list[float]:
    """Return the score of POSITIVE for each text."""
    free = asyncio.Semaphore(AT_ONCE)

    async def classify(text: str) -> float:
        text_input = triton.InferInput("TEXT", [1], "BYTES")
        text_input.set_data_from_numpy(np.array([text.encode()], dtype=np.object_))
        async with free:
            result = await client.infer(MODEL, [text_input], headers=HEADERS)
        return float(result.as_numpy("probabilities")[0][1])

    async with triton.InferenceServerClient(ADDRESS) as client:
        return await asyncio.gather(*(classify(text) for text in texts))


texts = sys.argv[1:] or ["This pizza is great!"]
try:
    scores = asyncio.run(classify_all(texts))
except InferenceServerException as error:
    sys.exit(f"{error.status()}: {error.message()} (server: {ADDRESS}; `make serve` starts one)")
for text, score in zip(texts, scores, strict=True):
    print(f"{score:.4f}  {text}")

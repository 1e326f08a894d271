"""FastAPI with a plain function, which runs in the thread pool; ``uvicorn fastapi_server:app``.

``PEER`` may set ``threads``, the size of that pool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from classifier import Answer, Classifier
from fastapi import FastAPI
from onnx_model import peer_settings
from pydantic import BaseModel
from reranker import Reranker, Scores


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Size the thread pool, which can only be done inside of the event loop."""
    limiter = current_default_thread_limiter()
    limiter.total_tokens = peer_settings().get("threads", limiter.total_tokens)
    yield


class Text(BaseModel):
    """The body of a request to a classifier."""

    text: str


class Question(BaseModel):
    """The body of a request to a reranker."""

    query: str
    contexts: list[str]


app = FastAPI(lifespan=lifespan)

if len(peer_settings()["labels"]) > 1:
    classifier = Classifier()

    @app.post("/")
    def classify(body: Text) -> Answer:
        """Return the scores of one text."""
        return classifier.classify([body.text])[0]

else:
    reranker = Reranker()

    @app.post("/")
    def rerank(body: Question) -> Scores:
        """Return the scores of the contexts."""
        return reranker.score(body.query, body.contexts)

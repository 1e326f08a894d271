"""FastAPI as most people write it: a plain function, which runs in the thread pool; ``uvicorn fastapi_server:app``."""

from __future__ import annotations

from classifier import Answer, Classifier
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
classifier = Classifier()


class Text(BaseModel):
    """The body of a request."""

    text: str


@app.post("/")
def classify(body: Text) -> Answer:
    """Return the scores of one text."""
    return classifier.classify([body.text])[0]

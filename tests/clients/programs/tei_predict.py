"""Hugging Face's inference client before TEI's ``/predict``."""

from __future__ import annotations

from typing import Any

import httpx
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.clients.programs.common import Target, run


def labels(target: Target) -> Any:
    """The best label of each text: of TEI's answer this client keeps the first entry."""
    client = InferenceClient(model=f"http://{target.http}/predict", token=target.token)
    found: list[Any] = [client.text_classification(text) for text in target.texts]
    return [[entry.label, entry.score] for entry in found]


def batch(target: Target) -> Any:
    """What it cannot ask: all texts at once."""
    inputs = [[text] for text in target.texts]
    answer = httpx.post(f"http://{target.http}/predict", json={"inputs": inputs}, headers=target.headers)
    return answer.raise_for_status().json()


def refused(target: Target) -> Any:
    """Status and message of what ends with an error."""
    outcomes = {}
    for name, token, text in (("wrong token", "wrong", "good"), ("empty", target.token, "")):
        client = InferenceClient(model=f"http://{target.http}/predict", token=token)
        try:
            client.text_classification(text)
        except HfHubHTTPError as error:
            outcomes[name] = [error.response.status_code, str(error)]
    return outcomes


if __name__ == "__main__":
    run({"labels": labels, "batch": batch, "refused": refused})

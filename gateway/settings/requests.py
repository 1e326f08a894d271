"""What a request may ask for, and how it is answered."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from gateway.settings.kinds import Bytes, Seconds


class RequestSettings(BaseModel):
    """What a request may ask for, and how it is answered."""

    result_shape: Literal["array", "items"] = Field(
        "array",
        description="Shape of `result` if the query has no ?result_shape=: array (today's API) or items "
        "(best label first, as documented in 2023).",
    )
    max_body_bytes: Bytes = Field(
        1024 * 1024, description="Largest request body; a larger one gets 413, code 3006."
    )
    max_requests_in_flight: int = Field(
        512, gt=0, description="Texts in progress at once in one worker; above it 429, code 3040."
    )
    max_batch_texts: int = Field(
        100, gt=0, description="Most texts in one request (`requests`); above it 400, code 5006."
    )
    max_contexts: int = Field(
        100,
        gt=0,
        description="Most contexts in one request to a reranker; above it 400, code 5006. Never more than "
        "GATEWAY_MAX_REQUESTS_IN_FLIGHT.",
    )
    request_timeout_s: Seconds = Field(
        10.0, description="Time from admission to answer, body included; above it 408, code 3007."
    )
    playground: bool = Field(
        True,
        description="Serve the playground at /, a page for trying the models in a browser, and the API "
        "reference at /reference.",
    )

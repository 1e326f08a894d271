"""What a request may ask for, and how it is answered."""

from __future__ import annotations

from pathlib import Path
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
    long_texts: Literal["cut", "window"] = Field(
        "cut",
        description="What becomes of a text with more tokens than the model reads, unless the request says "
        "?long=: cut, or window (read in overlapping windows). It concerns Cloudflare's routes, and "
        "classifiers that were exported with windows; everything else is cut.",
    )
    window_overlap: int = Field(
        64,
        ge=0,
        description="Tokens that two neighbouring windows of a long text share; never more than half of a "
        "window.",
    )
    max_windows: int = Field(
        16,
        gt=1,
        le=64,  # a text counts once in the rate, however many windows it has
        description="Most windows of one text, at most 64; what is left of it is cut.",
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
    reports_folder: Path | None = Field(
        None,
        description="The exporter's folder of artefacts, whose reports callers with a token may read "
        "(docs/export.md#who-may-read-it): figures, and no text of an evaluation. `tritonflare serve` takes "
        ".cache/artefacts. Unset: no reports.",
    )

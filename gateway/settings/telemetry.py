"""Logs and traces."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from gateway.addresses import networks


class TelemetrySettings(BaseModel):
    """Logs and traces."""

    access_log_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of successful requests that get a line in the access log; failed requests always "
        "do.",
    )
    log_client_address: bool = Field(
        False, description="Add the client's IP address to each line of the access log."
    )
    trusted_proxies: str | None = Field(
        None,
        description="Addresses and networks of proxies, with commas between (127.0.0.1,10.0.0.0/8). From "
        "them, the client's address is the right-most one in X-Forwarded-For that is not one of them; "
        "from others the header is ignored. Needs GATEWAY_LOG_CLIENT_ADDRESS.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of log lines written to stderr."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of log lines: text, or one JSON object a line (docs/observability.md)."
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="OTLP/HTTP address for spans, such as http://127.0.0.1:4318/v1/traces; without it there "
        "are no traces. Needs the extra otel (docs/observability.md).",
    )
    trace_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the requests without a traceparent that are traced; a traceparent decides for "
        "the others. Needs GATEWAY_OTLP_ENDPOINT.",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, proxies: str | None) -> str | None:
        try:
            networks(proxies or "::")
        except ValueError as exc:
            raise ValueError("must be addresses and networks such as 10.0.0.0/8 with commas between") from exc
        return proxies

"""Who may ask, and how much."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr


class AccessSettings(BaseModel):
    """Who may ask, and how much."""

    api_tokens: SecretStr | None = Field(
        None, description="Comma-separated account:token pairs; the account * stands for any account."
    )
    tokens_file: Path | None = Field(
        None,
        description="File of account:sha256hex lines, optionally with an expiry. `tritonflare token` writes "
        "it; the gateway reads it again when it changes.",
    )
    token_uses_file: Path | None = Field(
        None,
        description="File in which the gateway notes when each token of GATEWAY_TOKENS_FILE was last used; "
        "default: beside that file, with .used behind its name. Gateways of one host may share it.",
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate chain in PEM; turns HTTPS on. Read again when it changes."
    )
    tls_key: Path | None = Field(
        None, description="Private key of the certificate in PEM, without a password."
    )
    binding_without_token: bool = Field(
        False,
        description="For local development: Workers bindings on this machine need no token "
        "(docs/workers.md). Needs a loopback GATEWAY_HOST.",
    )
    requests_per_minute: int = Field(
        0,
        ge=0,
        description="Texts an account may send in a minute; above it 429, code 3021. 0 is no limit; "
        "Cloudflare's is 2000. With several workers it needs GATEWAY_RATE_REDIS_URL.",
    )
    rate_redis_url: SecretStr | None = Field(
        None,
        description="redis://[:password@]host:port/db that counts the rate for all workers and gateways "
        "together (extra redis). While Redis cannot be reached, each process counts alone.",
    )

"""Every setting of the gateway, declared once: environment variable, type, default, help.

The environment variable is the field's name in upper case behind ``GATEWAY_``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.addresses import is_loopback, networks, targets

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]

BUFFERED_OVERHEAD_BYTES = 512 * 1024
"""What may come with a body in one reading."""
MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""Room in a gRPC message for everything that is not text."""


class ConfigurationError(ValueError):
    """The gateway refuses to start; the message is one clear sentence without secrets."""


class Settings(BaseSettings):
    """All settings of the gateway."""

    # hide_input_in_errors: a validation error would otherwise print the tokens it was given.
    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    host: str = Field(
        "127.0.0.1", min_length=1, description="Name or IP address to listen on; Unix sockets are not served."
    )
    port: int = Field(8787, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port for gRPC clients of the Open Inference Protocol (docs/clients.md); 0 takes a "
        "free one. Unset: no gRPC. With a wildcard GATEWAY_HOST it listens on IPv4 and IPv6.",
    )
    grpc_max_streams: int = Field(
        1024,
        gt=0,
        description="gRPC calls and streams open at once in each worker; one more gets RESOURCE_EXHAUSTED.",
    )
    workers: int = Field(
        1,
        gt=0,
        le=256,
        description="Processes that share the port, to use more cores. Each has its own connections to "
        "Triton, its own GATEWAY_MAX_REQUESTS_IN_FLIGHT and its own GATEWAY_CALL_SLOTS.",
    )
    worker_timeout_s: Seconds = Field(
        15.0,
        description="With several workers: the supervisor asks each worker for a heartbeat once a second, "
        "and kills and replaces a worker that has not answered for this long.",
    )

    api_tokens: SecretStr | None = Field(
        None, description="Comma-separated account:token pairs; the account * stands for any account."
    )
    tokens_file: Path | None = Field(
        None,
        description="File of account:sha256hex lines, optionally with an expiry. `tritonflare token` writes "
        "it; the gateway reads it again when it changes.",
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

    triton_url: str = Field(
        "127.0.0.1:8001",
        min_length=1,
        description="gRPC target of Triton: host:port. For several Tritons dns:///name:port (all addresses "
        "of the name) or ipv4:10.0.0.1:8001,10.0.0.2:8001. A call goes to the address with the fewest calls "
        "under way; if that address cannot take it, it goes to the next.",
    )
    triton_metadata_key: SecretStr | None = Field(
        None,
        description="name=secret of Triton's --grpc-restricted-protocol. Every call sends it as the "
        "metadata triton-grpc-protocol-<name>.",
    )
    triton_max_message_bytes: Bytes = Field(
        64 * 1024 * 1024, description="Largest gRPC message sent to or accepted from Triton."
    )
    triton_control_timeout_s: Seconds = Field(
        2.0, description="Deadline of each discovery call (repository index, model configuration)."
    )

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
    call_slots: int = Field(
        3,
        gt=0,
        description="Calls to Triton under way at once for each model and worker. Texts that find no free "
        "slot leave together in the next call. Long texts (more than 4 bytes for each token that the model "
        "reads) have one slot fewer of their own, texts above 16 KiB two fewer, at least one each: short "
        "texts do not wait for them.",
    )
    max_call_texts: int = Field(
        64, gt=0, description="Most texts in one call to Triton; 1 sends each text alone."
    )
    call_length_ratio: float = Field(
        4.0,
        ge=1,
        allow_inf_nan=False,
        description="Texts in one call are at most this many times longer or shorter, in bytes, than the "
        "oldest of them: a short text does not wait for a long one.",
    )
    max_queue_s: Seconds = Field(
        2.0,
        description="When the oldest queued text has waited this long for a call, new texts get 429, code "
        "3040, at once instead of a timeout later.",
    )
    cache_bytes: int = Field(
        0,
        ge=0,
        description="Memory for the answer cache, which answers repeated texts without computing them "
        "again; 0 turns it off. Texts themselves are never kept.",
    )
    max_batch_texts: int = Field(
        100, gt=0, description="Most texts in one request (`requests`); above it 400, code 5006."
    )
    max_connections: int = Field(
        0,
        ge=0,
        description="Connections open at once in each worker. A new one above it replaces the connection "
        "that has been idle longest. 0: as many as the limit of open files allows, at most 16384.",
    )
    max_buffered_bytes: Bytes = Field(
        128 * 1024 * 1024,
        description="Memory in each worker for received bytes of unanswered requests: unfinished heads, "
        "bodies, pipelined requests. Above it the oldest unfinished heads are closed; if there are none, "
        "429, code 3040.",
    )
    transfer_timeout_s: Seconds = Field(
        10.0,
        description="Time limit for a TLS handshake, for the head of a request, and for a client that reads "
        "nothing of its answer. Bodies have GATEWAY_REQUEST_TIMEOUT_S.",
    )
    request_timeout_s: Seconds = Field(
        10.0, description="Time from admission to answer, body included; above it 408, code 3007."
    )

    playground: bool = Field(
        True, description="Serve the playground at /, a page for trying the models in a browser."
    )

    keep_alive_timeout_s: int = Field(
        75,
        gt=0,
        description="Time that an idle connection stays open. Keep it above the idle timeout of a load "
        "balancer in front.",
    )

    refresh_interval_s: Seconds = Field(
        5.0, description="Pause between two checks of Triton's models, each with canary inferences."
    )
    retry_interval_s: Seconds = Field(0.5, description="Pause between two checks while a model is not ready.")
    canary_timeout_s: Seconds = Field(
        2.0, description="Time that a check waits for a canary. A later answer counts when it arrives."
    )
    canary_max_age_s: Seconds = Field(
        20.0,
        description="A model is not ready when a canary has waited this long for an answer and no other "
        "text got one meanwhile.",
    )
    canaries_per_s: float = Field(
        20.0,
        gt=0,
        allow_inf_nan=False,
        description="Most canaries a second for each worker. With more models than this times "
        "GATEWAY_REFRESH_INTERVAL_S, canaries rotate, longest unanswered models first.",
    )

    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Pause at shutdown between the end of readiness and the closing of the port, so that "
        "load balancers notice.",
    )
    drain_timeout_s: int = Field(
        10,
        gt=0,
        description="Time that requests in flight get to finish at shutdown; those that take longer, up to "
        "GATEWAY_REQUEST_TIMEOUT_S, get 503.",
    )
    drain_keep_alive_s: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Time that idle connections stay open at shutdown after the port has closed, because a "
        "proxy may be about to use one. At most GATEWAY_DRAIN_TIMEOUT_S; without idle connections there is "
        "no wait.",
    )
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

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if host.startswith("unix:") or "/" in host:
            raise ValueError(
                "must be a name or an IP address, because Unix sockets are not served; for a proxy on this "
                "machine use 127.0.0.1, which no other machine reaches"
            )
        return host

    @field_validator("triton_url")
    @classmethod
    def _check_target(cls, url: str) -> str:
        try:
            targets(url)
        except ValueError as exc:
            raise ValueError(
                "must be host:port, dns:///name:port, or several addresses with commas between"
            ) from exc
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, proxies: str | None) -> str | None:
        try:
            networks(proxies or "::")
        except ValueError as exc:
            raise ValueError("must be addresses and networks such as 10.0.0.0/8 with commas between") from exc
        return proxies

    @model_validator(mode="after")
    def _check_sizes(self) -> Settings:
        if self.triton_max_message_bytes < self.max_body_bytes + MESSAGE_OVERHEAD_BYTES:
            raise ValueError(
                "triton_max_message_bytes must exceed max_body_bytes by at least "
                f"{MESSAGE_OVERHEAD_BYTES} bytes, or a permitted text could not be sent"
            )
        if self.max_buffered_bytes < self.max_body_bytes + BUFFERED_OVERHEAD_BYTES:
            raise ValueError(
                "max_buffered_bytes must exceed max_body_bytes by at least "
                f"{BUFFERED_OVERHEAD_BYTES} bytes, or a permitted text would find no room"
            )
        if self.max_batch_texts > self.max_requests_in_flight:
            raise ValueError(
                "max_batch_texts must not exceed max_requests_in_flight, or a permitted batch would never fit"
            )
        return self

    @model_validator(mode="after")
    def _check_dependent(self) -> Settings:
        if 0 < self.requests_per_minute < self.max_batch_texts:
            raise ValueError(
                "requests_per_minute must not be below max_batch_texts, or a permitted batch would never pass"
            )
        if self.requests_per_minute and self.workers > 1 and self.rate_redis_url is None:
            raise ValueError(
                "requests_per_minute needs workers to be 1 or rate_redis_url: each worker would count for "
                "itself, and an account could send as many times as much"
            )
        if self.rate_redis_url is not None and not self.requests_per_minute:
            raise ValueError("rate_redis_url does nothing without requests_per_minute: set both or none")
        if self.trusted_proxies is not None and not self.log_client_address:
            raise ValueError("trusted_proxies does nothing without log_client_address: set both or none")
        return self

    @model_validator(mode="after")
    def _check_credentials(self) -> Settings:
        if self.binding_without_token and not is_loopback(self.host):
            raise ValueError(
                "binding_without_token needs host to be a loopback address such as 127.0.0.1, "
                "or other machines could classify without a token"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both or none")
        if self.triton_metadata_key is not None:
            _check_metadata_key(self.triton_metadata_key.get_secret_value())
        return self

    @model_validator(mode="after")
    def _check_times(self) -> Settings:
        if self.max_queue_s >= self.request_timeout_s:
            raise ValueError(
                "max_queue_s must be below request_timeout_s, or texts would meet their deadline before any "
                "is refused at once: lower max_queue_s, to a fifth of request_timeout_s for instance"
            )
        if self.retry_interval_s > self.refresh_interval_s:
            raise ValueError("retry_interval_s must not exceed refresh_interval_s")
        look_s = self.refresh_interval_s + self.triton_control_timeout_s + self.canary_timeout_s
        if self.canary_max_age_s <= look_s:
            raise ValueError(
                "canary_max_age_s must exceed refresh_interval_s + triton_control_timeout_s "
                "+ canary_timeout_s, or one canary that is lost would end readiness"
            )
        return self


def _check_metadata_key(key: str) -> None:
    name, _, secret = key.partition("=")
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and secret):
        raise ValueError("triton_metadata_key must be of the form name=secret")
    if not (secret.isascii() and secret.isprintable()):
        raise ValueError("triton_metadata_key must be of printable ASCII characters, as gRPC metadata is")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; ``overrides`` win.

    Raises:
        ConfigurationError: with one line for each setting that is wrong, values left out.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        lines = (
            f"{variable(error['loc'])}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors(include_input=False, include_url=False, include_context=False)
        )
        raise ConfigurationError("; ".join(lines)) from None


def variable(place: tuple[int | str, ...]) -> str:
    """Name the environment variable that an error is about."""
    return f"GATEWAY_{place[0]}".upper() if place else "settings"

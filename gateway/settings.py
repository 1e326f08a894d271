"""Every setting of the gateway, declared once: environment variable, type, default, help.

The environment variable is the field's name in upper case behind ``GATEWAY_``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.loopback import is_loopback
from gateway.targets import targets

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
    workers: int = Field(
        1,
        gt=0,
        le=256,
        description="Processes that share the port, for more cores; each has its own connection to Triton "
        "and its own max_requests_in_flight and call_slots.",
    )
    worker_timeout_s: Seconds = Field(
        15.0,
        description="With several workers: one that has not answered the supervisor, which asks once a "
        "second, for this long (stopped, or stuck) is killed and replaced.",
    )

    api_tokens: SecretStr | None = Field(
        None, description="Comma-separated account:token pairs; the account * stands for any account."
    )
    tokens_file: Path | None = Field(
        None,
        description="File of account:sha256hex lines, optionally with an expiry (`tritonflare token` writes "
        "them); read again when it changes.",
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate chain in PEM: serve HTTPS. Read again when it changes."
    )
    tls_key: Path | None = Field(None, description="Its private key in PEM, without a password.")

    binding_without_token: bool = Field(
        False,
        description="Local development: Workers bindings on this machine need no token (docs/workers.md); "
        "only with a loopback GATEWAY_HOST.",
    )

    triton_url: str = Field(
        "127.0.0.1:8001",
        min_length=1,
        description="gRPC target of Triton: host:port; of several dns:///name:port, for all addresses of the "
        "name, or ipv4:10.0.0.1:8001,10.0.0.2:8001. A call goes to the one with the fewest under way, and if "
        "that cannot take it to the next.",
    )
    triton_metadata_key: SecretStr | None = Field(
        None,
        description="name=secret of Triton's --grpc-restricted-protocol, sent with every call "
        "as the metadata triton-grpc-protocol-<name>.",
    )
    triton_max_message_bytes: Bytes = Field(
        64 * 1024 * 1024, description="Largest gRPC message sent to or accepted from Triton."
    )
    triton_control_timeout_s: Seconds = Field(
        2.0, description="Deadline of each discovery call (repository index, model configuration)."
    )

    result_shape: Literal["array", "items"] = Field(
        "array",
        description="Shape of result unless the query says ?result_shape=: array (the API of today) "
        "or items (best label first, as the pages of 2023 show).",
    )
    max_body_bytes: Bytes = Field(1024 * 1024, description="Largest request body; above it 413, code 3006.")
    max_requests_in_flight: int = Field(
        512, gt=0, description="Texts worked on at once by one worker; above it 429, code 3040."
    )
    requests_per_minute: int = Field(
        0,
        ge=0,
        description="Texts an account may send in a minute; above it 429, code 3021. 0 is no limit; "
        "Cloudflare's own is 2000. With several workers it needs rate_redis_url.",
    )
    rate_redis_url: SecretStr | None = Field(
        None,
        description="redis://[:password@]host:port/db in which the rate is counted for all workers and "
        "gateways together (extra redis). While it is away, each process counts alone.",
    )
    call_slots: int = Field(
        3,
        gt=0,
        description="Calls to Triton under way at once for each model and worker; texts that find no free "
        "one leave together in the next. Texts of more than 4 bytes for each token that the model reads have "
        "slots of their own, one fewer, and so have those above 16 KiB, two fewer, but always at least one: "
        "short texts do not wait for them.",
    )
    max_call_texts: int = Field(
        64, gt=0, description="Most texts in one call to Triton; 1 sends each by itself."
    )
    call_length_ratio: float = Field(
        4.0,
        ge=1,
        allow_inf_nan=False,
        description="Texts in one call are at most this many times as long, in bytes, as the oldest of them, "
        "and as much shorter: a short text does not wait for a long one.",
    )
    max_queue_s: Seconds = Field(
        2.0,
        description="When texts have waited this long for a call, more are refused with 429, code 3040: "
        "better at once than after the deadline.",
    )
    cache_bytes: int = Field(
        0,
        ge=0,
        description="Memory for answers to keep, so that a text that comes again is not computed again; "
        "0 keeps none. Texts themselves are never kept.",
    )
    max_batch_texts: int = Field(
        100, gt=0, description="Texts in one request (`requests`); above it 400, code 5006."
    )
    max_connections: int = Field(
        0,
        ge=0,
        description="Connections open at once in each worker; one more takes the place of the one that has "
        "been idle longest. 0 is as many as the limit of open files leaves room for, at most 16384.",
    )
    max_buffered_bytes: Bytes = Field(
        128 * 1024 * 1024,
        description="Memory in each worker for what has come of requests that have no answer yet: unfinished "
        "heads, bodies, and what was sent behind them. Above it the oldest unfinished heads make room; where "
        "there are none, 429, code 3040.",
    )
    transfer_timeout_s: Seconds = Field(
        10.0,
        description="Time that the head of a request and a TLS handshake may take to arrive, and answers to "
        "be taken; bodies have request_timeout_s.",
    )
    request_timeout_s: Seconds = Field(
        10.0, description="Time from admission to answer, body included; above it 408, code 3007."
    )

    playground: bool = Field(
        True, description="Serve the page at / on which people try the models out in a browser."
    )

    keep_alive_timeout_s: int = Field(
        75,
        gt=0,
        description="Time an idle connection stays open; keep it above that of a load balancer in front.",
    )

    refresh_interval_s: Seconds = Field(
        5.0, description="Pause between two looks at Triton's models, each with canary inferences."
    )
    retry_interval_s: Seconds = Field(0.5, description="The same pause while something is not ready.")
    canary_timeout_s: Seconds = Field(
        2.0, description="Time to wait for a canary's answer; one that comes later counts when it comes."
    )
    canary_max_age_s: Seconds = Field(
        20.0,
        description="A model is not ready when a canary has waited this long for an answer, and nobody else "
        "had one from it meanwhile.",
    )
    canaries_per_s: float = Field(
        20.0,
        gt=0,
        allow_inf_nan=False,
        description="Most canaries a second of each worker: with more models than that times "
        "refresh_interval_s they take turns, those that have answered nobody for the longest first.",
    )

    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Pause between readiness going off and the port closing, for load balancers to notice.",
    )
    drain_timeout_s: int = Field(
        10,
        gt=0,
        description="Time that requests in flight get to finish at shutdown; those that would take longer, "
        "up to request_timeout_s, are answered 503.",
    )
    drain_keep_alive_s: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Time that idle connections stay open at shutdown after the port has closed, at most "
        "drain_timeout_s: a proxy may be about to send a request on one. Nothing waits if there are none.",
    )
    access_log_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the successful requests that get a line in the log; all others always do.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written to stderr."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log lines: text, or one JSON object each (docs/observability.md)."
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="Where spans go over OTLP/HTTP, such as http://127.0.0.1:4318/v1/traces; without one "
        "there are no traces. Needs the extra otel (docs/observability.md).",
    )
    trace_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the requests without a traceparent that are traced; for the others, the "
        "caller has decided. Only with otlp_endpoint.",
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

    @model_validator(mode="after")
    def _check_limits_against_each_other(self) -> Settings:
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
        if self.binding_without_token and not is_loopback(self.host):
            raise ValueError(
                "binding_without_token needs host to be a loopback address such as 127.0.0.1, "
                "or other machines could classify without a token"
            )
        return self

    @model_validator(mode="after")
    def _check_times_and_secrets(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both or none")
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
        if self.triton_metadata_key is not None:
            name, _, secret = self.triton_metadata_key.get_secret_value().partition("=")
            if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and secret):
                raise ValueError("triton_metadata_key must be of the form name=secret")
            if not (secret.isascii() and secret.isprintable()):
                raise ValueError(
                    "triton_metadata_key must be of printable ASCII characters, as gRPC metadata is"
                )
        return self


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; ``overrides`` win.

    Raises:
        ConfigurationError: with one line for each setting that is wrong, values left out.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        lines = (
            f"{_variable(error['loc'])}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors(include_input=False, include_url=False, include_context=False)
        )
        raise ConfigurationError("; ".join(lines)) from None


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Describe each of the environment variables ``names`` that looks like a setting and is none.

    They are no reason not to start: for a Service called gateway, Kubernetes itself sets a few.
    """
    known = [_variable((field,)) for field in Settings.model_fields]
    unknown = sorted({name.upper() for name in names if name.upper().startswith("GATEWAY_")} - {*known})
    return [_with_hint(name, get_close_matches(name, known, n=1, cutoff=0.85)) for name in unknown]


def _with_hint(name: str, close: list[str]) -> str:
    return f"{name} (did you mean {close[0]}?)" if close else name


def _variable(place: tuple[int | str, ...]) -> str:
    """Name the environment variable that an error is about."""
    return f"GATEWAY_{place[0]}".upper() if place else "settings"

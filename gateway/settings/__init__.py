"""Every setting of the gateway, declared once: environment variable, type, default, help.

The environment variable is the field's name in upper case behind ``GATEWAY_``. Each module declares the
settings of one subject; here they are put together and checked against each other.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.addresses import is_loopback
from gateway.settings.access import AccessSettings
from gateway.settings.batches import BatchSettings
from gateway.settings.inference import InferenceSettings
from gateway.settings.requests import RequestSettings
from gateway.settings.server import ServerSettings
from gateway.settings.telemetry import TelemetrySettings

BUFFERED_OVERHEAD_BYTES = 512 * 1024
"""What may come with a body in one reading."""
MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""Room in a gRPC message for everything that is not text."""


class ConfigurationError(ValueError):
    """The gateway refuses to start; the message is one clear sentence without secrets."""


# The last one's fields come first in the documents.
class Settings(
    TelemetrySettings,
    InferenceSettings,
    BatchSettings,
    RequestSettings,
    AccessSettings,
    ServerSettings,
    BaseSettings,
):
    """All settings of the gateway."""

    # hide_input_in_errors: a validation error would otherwise print the tokens it was given.
    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

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
    def _check_batches(self) -> Settings:
        if self.keeps_batches:
            self.check_batch_sizes()
        return self

    @property
    def keeps_batches(self) -> bool:
        """Whether there is a place for batches that are fetched later."""
        return self.batch_folder is not None or self.batch_redis_url is not None

    def check_batch_sizes(self) -> None:
        """Check that there is room for a queued batch of the largest permitted size.

        Raises:
            ValueError: there is none.
        """
        if self.max_buffered_bytes < self.max_queued_body_bytes + BUFFERED_OVERHEAD_BYTES:
            raise ValueError(
                "max_buffered_bytes must exceed max_queued_body_bytes by at least "
                f"{BUFFERED_OVERHEAD_BYTES} bytes, or a permitted batch would find no room"
            )
        if self.triton_max_message_bytes < self.max_queued_body_bytes + MESSAGE_OVERHEAD_BYTES:
            raise ValueError(
                "triton_max_message_bytes must exceed max_queued_body_bytes by at least "
                f"{MESSAGE_OVERHEAD_BYTES} bytes, or a permitted text could not be sent"
            )
        if self.batch_store_bytes < self.max_queued_body_bytes:
            raise ValueError(
                "batch_store_bytes must not be below max_queued_body_bytes, or a permitted batch would "
                "never fit"
            )

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
                "or other machines could send requests without a token"
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

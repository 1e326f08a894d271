"""Settings: environment, limits against each other, secrets."""

from __future__ import annotations

import os

import pytest

from gateway.settings import ConfigurationError, Settings, load_settings
from gateway.unknown_variables import unknown_variables


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("GATEWAY_")]:
        monkeypatch.delenv(name)


def test_every_setting_has_a_default_and_a_description() -> None:
    load_settings()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_the_environment_sets_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "9000")
    monkeypatch.setenv("GATEWAY_HOST", "0.0.0.0")
    settings = load_settings(port=9001)
    assert (settings.host, settings.port) == ("0.0.0.0", 9001)


def test_secrets_show_up_neither_in_repr_nor_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_API_TOKENS", "a:hidden-one")
    monkeypatch.setenv("GATEWAY_TRITON_METADATA_KEY", "name=hidden-two")
    settings = load_settings()
    assert settings.api_tokens is not None
    assert settings.api_tokens.get_secret_value() == "a:hidden-one"
    assert "hidden" not in repr(settings) + str(settings)
    monkeypatch.setenv("GATEWAY_MAX_BODY_BYTES", "99999999999")
    monkeypatch.setenv("GATEWAY_TRITON_METADATA_KEY", "hidden-three")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="max_body_bytes") as raw:
        Settings()
    assert "hidden" not in str(raw.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"host": "unix:/run/tritonflare.sock"}, "GATEWAY_HOST: must be a name or an IP address"),
        ({"host": "/run/tritonflare.sock"}, "GATEWAY_HOST: must be a name or an IP address"),
        ({"port": 65536}, "GATEWAY_PORT: Input should be less than or equal to 65535"),
        ({"max_requests_in_flight": 0}, "GATEWAY_MAX_REQUESTS_IN_FLIGHT: Input should be greater than 0"),
        ({"max_windows": 65}, "GATEWAY_MAX_WINDOWS: Input should be less than or equal to 64"),
        ({"request_timeout_s": float("inf")}, "GATEWAY_REQUEST_TIMEOUT_S: Input should be a finite number"),
        ({"result_shape": "list"}, "GATEWAY_RESULT_SHAPE: Input should be 'array' or 'items'"),
        ({"max_body_bytes": 64 * 1024 * 1024}, "triton_max_message_bytes must exceed max_body_bytes"),
        ({"max_batch_texts": 513}, "max_batch_texts must not exceed max_requests_in_flight"),
        ({"requests_per_minute": 99}, "requests_per_minute must not be below max_batch_texts"),
        (
            {"requests_per_minute": 2000, "workers": 2},
            "requests_per_minute needs workers to be 1 or rate_redis_url",
        ),
        ({"trusted_proxies": "10.0.0.0/8"}, "trusted_proxies does nothing without log_client_address"),
        (
            {"trusted_proxies": "10.0.0.1/8", "log_client_address": True},
            "GATEWAY_TRUSTED_PROXIES: must be addresses and networks such as 10.0.0.0/8",
        ),
        ({"rate_redis_url": "redis://127.0.0.1"}, "rate_redis_url does nothing without requests_per_minute"),
        ({"tls_key": "key.pem"}, "tls_certificate and tls_key belong together"),
        ({"workers": 0}, "GATEWAY_WORKERS: Input should be greater than 0"),
        ({"request_timeout_s": 2}, "lower max_queue_s, to a fifth of request_timeout_s"),
        ({"retry_interval_s": 6}, "retry_interval_s must not exceed refresh_interval_s"),
        ({"canary_max_age_s": 9}, "canary_max_age_s must exceed refresh_interval_s"),
        ({"triton_url": "http://triton:8001"}, "GATEWAY_TRITON_URL: must be host:port, dns:///name:port, or"),
        ({"triton_url": "triton"}, "GATEWAY_TRITON_URL: must be host:port"),
        ({"aliases": "a"}, "GATEWAY_ALIASES: must be of the form alias=model, with commas between"),
        ({"aliases": "a=b=c"}, "GATEWAY_ALIASES: must be of the form alias=model"),
        ({"aliases": "a=b,=c"}, "GATEWAY_ALIASES: must be of the form alias=model"),
        ({"aliases": "a=b, a=c"}, "GATEWAY_ALIASES: has an alias twice"),
        ({"triton_metadata_key": "secret"}, "triton_metadata_key must be of the form name=secret"),
        ({"triton_metadata_key": "na me=secret"}, "triton_metadata_key must be of the form name=secret"),
        ({"triton_metadata_key": "name="}, "triton_metadata_key must be of the form name=secret"),
        ({"triton_metadata_key": "name=é"}, "triton_metadata_key must be of printable ASCII characters"),
        ({"triton_metadata_key": "name=a\nb"}, "triton_metadata_key must be of printable ASCII characters"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**wrong)
    assert words in str(caught.value)


@pytest.mark.parametrize("field", ["max_buffered_bytes", "triton_max_message_bytes", "batch_store_bytes"])
@pytest.mark.parametrize(
    "place", [{"batch_folder": "/somewhere"}, {"batch_redis_url": "redis://127.0.0.1:1/0"}]
)
def test_sizes_are_checked_against_those_of_queued_batches_only_where_batches_are_kept(
    field: str, place: dict[str, str]
) -> None:
    small = {field: 4 * 1024 * 1024}
    assert not load_settings(**small).keeps_batches
    with pytest.raises(ConfigurationError, match=f"{field} .* max_queued_body_bytes"):
        load_settings(**small, **place)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example", "localhost.example"])
def test_bindings_without_token_are_refused_where_others_could_connect(host: str) -> None:
    with pytest.raises(ConfigurationError, match="needs host to be a loopback address"):
        load_settings(host=host, binding_without_token=True)
    assert load_settings(host=host).binding_without_token is False


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_bindings_without_token_are_possible_on_loopback(host: str) -> None:
    assert load_settings(host=host, binding_without_token=True).binding_without_token


def test_a_variable_that_is_no_setting_is_found_and_the_nearest_one_named() -> None:
    names = ["PATH", "GATEWAY_PORT", "gateway_host", "GATEWAY_MAX_BODY_BYTE", "GATEWAY_SERVICE_HOST"]
    assert unknown_variables(names) == [
        "GATEWAY_MAX_BODY_BYTE (did you mean GATEWAY_MAX_BODY_BYTES?)",
        "GATEWAY_SERVICE_HOST",
    ]
    assert unknown_variables(f"GATEWAY_{name}".upper() for name in Settings.model_fields) == []

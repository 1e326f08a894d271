"""The gateway that the commands on files start for themselves."""

from __future__ import annotations

import pytest

from tritonflare.own_server import own_settings

OPERATORS = {
    "SHADOW": "@cf/a/b=@cf/c/d",
    "LONG_TEXTS": "window",
    "OTLP_ENDPOINT": "http://collector:4318",
    "MAX_REQUESTS_IN_FLIGHT": "1",
    "MAX_BODY_BYTES": "100",
    "ALIASES": "a=b",
    "REQUESTS_PER_MINUTE": "100",
    "TOKENS_FILE": "/none",
    "GRPC_PORT": "8001",
    "WORKERS": "not a number",
}


def test_nothing_of_the_operators_environment_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = own_settings(triton_url="127.0.0.1:1").model_dump()
    assert (expected["host"], expected["port"], expected["workers"]) == ("127.0.0.1", 0, 1)
    assert expected["long_texts"] == "cut"
    for name, value in OPERATORS.items():
        assert name.lower() in expected
        monkeypatch.setenv(f"GATEWAY_{name}", value)
    assert own_settings(triton_url="127.0.0.1:1").model_dump() == expected

"""The gateway does not take itself for its Triton."""

from __future__ import annotations

import pytest

from gateway.main import run
from gateway.settings import ConfigurationError, Settings
from gateway.triton_address import check_triton_address


def settings(**given: object) -> Settings:
    return Settings.model_validate({"grpc_port": 8001, "triton_url": "127.0.0.1:8001", **given})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize(
    "triton", ["127.0.0.1:8001", "localhost:8001", "dns:///localhost:8001", "10.0.0.1:8001,[::1]:8001"]
)
def test_the_own_grpc_port_is_not_a_triton(host: str, triton: str) -> None:
    with pytest.raises(ConfigurationError, match=r"GATEWAY_TRITON_URL .* GATEWAY_GRPC_PORT"):
        check_triton_address(settings(host=host, triton_url=triton))


def test_the_address_that_the_gateway_listens_on_is_not_a_triton() -> None:
    with pytest.raises(ConfigurationError, match="would call itself"):
        check_triton_address(settings(host="10.0.0.1", triton_url="10.0.0.1:8001"))


@pytest.mark.parametrize(
    "given",
    [
        {"grpc_port": None},
        {"grpc_port": 0},
        {"grpc_port": 8002},
        {"triton_url": "triton:8001"},
        {"triton_url": "10.0.0.1:8001", "host": "0.0.0.0"},
        {"host": "10.0.0.1"},
    ],
)
def test_other_addresses_and_ports_are_allowed(given: dict[str, object]) -> None:
    check_triton_address(settings(**given))


def test_the_gateway_alone_refuses_to_start() -> None:
    with pytest.raises(ConfigurationError, match=r"GATEWAY_TRITON_URL .* GATEWAY_GRPC_PORT"):
        run(settings(api_tokens="*:a-token-of-the-tests", port=0))

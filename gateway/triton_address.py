"""Refuses a Triton address at which the gateway itself would answer."""

from __future__ import annotations

from gateway.addresses import is_loopback, targets
from gateway.settings import ConfigurationError, Settings

_ALL_ADDRESSES = ("", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)


def check_triton_address(settings: Settings) -> None:
    """Check that GATEWAY_TRITON_URL is not the gateway's own gRPC port; no name is looked up.

    Both speak the same protocol, so the gateway would call itself, and never be ready without an error that
    names the reason. Triton has the same default port, 8001, as the documents give the gateway.

    Raises:
        ConfigurationError: it is.
    """
    for host, port in targets(settings.triton_url):
        if port == settings.grpc_port and _is_own(host, settings.host):
            raise ConfigurationError(
                f"GATEWAY_TRITON_URL ({settings.triton_url}) is the address of GATEWAY_GRPC_PORT ({port}) on "
                "this machine, so the gateway would call itself as its Triton; change one of the two."
            )


def _is_own(host: str, listening: str) -> bool:
    if is_loopback(host):
        return is_loopback(listening) or listening in _ALL_ADDRESSES
    return host == listening

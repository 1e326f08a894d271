"""The ports of a gateway, bound before anything else starts, so that a wrong address is reported first."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from gateway.addresses import authority
from gateway.server.bind import bind
from gateway.settings import ConfigurationError, Settings


@dataclass(frozen=True, slots=True)
class Ports:
    """The bound sockets; a context manager that closes them."""

    http: socket.socket
    """Listens for one worker; with several workers it reserves the port for all of them."""
    grpc: socket.socket | None = None
    """Reserves the port; gRPC listens with sockets of its own."""

    @classmethod
    def bind(cls, settings: Settings) -> Ports:
        """Bind the ports of the settings.

        Raises:
            ConfigurationError: the address does not exist or is in use.
        """
        http = bind_http(settings)
        if settings.grpc_port is None:
            return cls(http)
        try:
            return cls(http, bind_grpc(settings, settings.grpc_port))
        except ConfigurationError:
            http.close()
            raise

    def known_to(self, settings: Settings) -> Settings:
        """Return the settings with the address and the number of the gRPC port as they were found here."""
        if self.grpc is None:
            return settings
        host, port = self.grpc.getsockname()[:2]
        return settings.model_copy(update={"host": host, "grpc_port": port})

    def close(self) -> None:
        """Close the sockets."""
        self.http.close()
        if self.grpc is not None:
            self.grpc.close()

    def __enter__(self) -> Ports:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bind_http(settings: Settings) -> socket.socket:
    """Bind the port for HTTP.

    Raises:
        ConfigurationError: the address does not exist or is in use.
    """
    remedy = "Set GATEWAY_HOST and GATEWAY_PORT to an address that is free."
    return _bind(settings.host, settings.port, remedy, shared=settings.workers > 1)


def bind_grpc(settings: Settings, port: int) -> socket.socket:
    """Bind the port for gRPC, at the address of HTTP.

    Raises:
        ConfigurationError: the address does not exist or is in use.
    """
    remedy = "Set GATEWAY_GRPC_PORT to a port that is free; if it is empty, there is no gRPC."
    return _bind(settings.host, port, remedy, shared=True)


def _bind(host: str, port: int, remedy: str, *, shared: bool) -> socket.socket:
    try:
        return bind(host, port, shared=shared)
    except OSError as exc:
        raise ConfigurationError(f"Cannot listen on {host} port {port}: {exc.strerror}. {remedy}") from exc


def grpc_address(settings: Settings) -> str:
    """Return ``address:port`` of the gRPC port, from settings that `Ports.known_to` returned."""
    return authority((settings.host, settings.grpc_port or 0))

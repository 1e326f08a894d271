"""Network addresses: gRPC targets as in gRPC's clients (grpc/doc/naming.md), loopback hosts, networks."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = tuple[str, int]
"""Host, without brackets, and port."""
IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SCHEME = re.compile(r"dns:(?://[^/]*/)?|ipv[46]:")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s/:@\[\],]+)):([0-9]{1,5})")


def targets(url: str) -> list[Address]:
    """Split a gRPC target into hosts and ports.

    Args:
        url: ``host:port``, ``dns:///host:port``, or several of them behind each other with commas
            between (``ipv4:10.0.0.1:8001,10.0.0.2:8001``); an IPv6 address stands in brackets.

    Raises:
        ValueError: it is none of these.
    """
    scheme = _SCHEME.match(url)
    found: dict[Address, None] = {}
    for part in url[scheme.end() if scheme else 0 :].split(","):
        match = _ADDRESS.fullmatch(part.strip())
        if match is None:
            raise ValueError("not of the form host:port")
        host, port = match[1] or match[2], int(match[3])
        if not 0 < port < 65536:
            raise ValueError("no such port")
        host.encode("idna")  # raises a ValueError where a look-up of the name would
        found[host, port] = None
    return list(found)


def authority(address: Address) -> str:
    """Return host and port as they stand in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether a host name or an address, without a port, is a loopback one; nothing is looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def networks(text: str) -> list[Network]:
    """Split ``10.0.0.0/8, 192.0.2.1, 2001:db8::/32``; a single address is a network of one.

    Raises:
        ValueError: a part is neither, has bits set behind its prefix (``10.0.0.1/8``), or maps IPv4 into
            IPv6 (``::ffff:10.0.0.0/104``): addresses of clients are compared as IPv4.
    """
    found = [ip_network(part.strip()) for part in text.split(",")]
    if any(getattr(network.network_address, "ipv4_mapped", None) for network in found):
        raise ValueError("write IPv4 networks as IPv4")
    return found

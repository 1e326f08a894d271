"""The IP address of a client, also behind proxies.

A proxy appends the address of its own client to X-Forwarded-For, so only the entries that trusted proxies
have added can be believed: the ones on the right. uvicorn (`ProxyHeadersMiddleware`) and nginx
(`real_ip_recursive on`) read the header in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, ip_address

from gateway.addresses import IPAddress, Network
from gateway.server.message import Address, HttpRequest

_HEADER = b"x-forwarded-for"
_PORT = re.compile(r":[0-9]{1,5}")
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?")


class ClientAddress:
    """Finds the address of the client that sent a request.

    Args:
        trusted: the proxies whose X-Forwarded-For is read; from other peers the header is ignored.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = trusted

    def of_peer(self, peer: Address | None) -> str | None:
        """Return the address of the other end of a connection; None if it has none (a Unix socket)."""
        return None if not peer else str(_address(peer[0]))

    def of_request(self, request: HttpRequest) -> str | None:
        """Return the right-most address in X-Forwarded-For that is not a trusted proxy.

        Returns:
            The left-most address if all of them are trusted proxies. The peer's address if it is not a
            trusted proxy, if the header is missing, or if the part that was read is malformed. None if the
            peer has no address.
        """
        if not request.client:
            return None
        peer = found = _address(request.client[0])
        if not self._trusts(peer):
            return str(peer)
        try:
            for entry in _entries_from_the_right(request):
                found = _entry_address(entry)
                if not self._trusts(found):
                    break
        except ValueError:
            return str(peer)
        return str(found)

    def _trusts(self, address: IPAddress) -> bool:
        return any(address in network for network in self._trusted)


def _entries_from_the_right(request: HttpRequest) -> Iterator[str]:
    """Return the entries of all headers X-Forwarded-For, which are one list (RFC 9110, section 5.3)."""
    for value in reversed(request.headers(_HEADER)):
        yield from reversed(value.split(","))


def _entry_address(entry: str) -> IPAddress:
    """Parse ``192.0.2.1``, ``192.0.2.1:443``, ``2001:db8::1``, ``[2001:db8::1]`` or ``[2001:db8::1]:443``.

    Raises:
        ValueError: it is none of these.
    """
    entry = entry.strip()
    if (bracketed := _BRACKETED.fullmatch(entry)) is not None:
        return _address(str(IPv6Address(bracketed[1])))
    if entry.count(":") == 1:
        host, colon, port = entry.partition(":")
        if _PORT.fullmatch(colon + port):
            entry = host
    return _address(entry)


def _address(text: str) -> IPAddress:
    """Parse an address; drop an IPv6 zone, and return IPv4 for an IPv4 address that is mapped into IPv6."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address

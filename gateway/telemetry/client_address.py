"""The IP address of a client, also behind proxies.

A proxy appends the address of its own client to X-Forwarded-For, so only the entries that trusted proxies
have added can be believed: the ones on the right. uvicorn (`ProxyHeadersMiddleware`) and nginx
(`real_ip_recursive on`) read the header in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address

from gateway.addresses import Network
from gateway.headers import HeaderSource
from gateway.server.message import Address

_HEADER = b"x-forwarded-for"
_ENTRY = re.compile(r"\[([^\[\]:]*:[^\[\]]*)\](?::[0-9]{1,5})?|([^\[\]:]*):[0-9]{1,5}|([^\[\]]*)")
"""``[2001:db8::1]``, with or without a port; ``192.0.2.1:443``; an address alone."""
_KNOWN_ADDRESSES = 1024
"""Addresses that are parsed once."""


class ClientAddress:
    """Finds the address of the client that sent a request.

    Args:
        trusted: the proxies whose X-Forwarded-For is read; from other peers the header is ignored.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = trusted
        self._parsed = lru_cache(_KNOWN_ADDRESSES)(self._parse)

    def of_peer(self, peer: Address | None) -> str | None:
        """Return the address of the other end of a connection; None if it has none (a Unix socket)."""
        return self._parsed(peer[0])[0] if peer else None

    def of_request(self, request: HeaderSource) -> str | None:
        """Return the right-most address in X-Forwarded-For that is not a trusted proxy.

        Returns:
            The left-most address if all of them are trusted proxies. The peer's address if it is not a
            trusted proxy, if the header is missing, or if the part that was read is malformed. None if the
            peer has no address.
        """
        if not request.client:
            return None
        peer, is_trusted = self._parsed(request.client[0])
        found = peer
        if is_trusted:
            try:
                for entry in _entries_from_the_right(request):
                    found, is_trusted = self._parsed(_without_port(entry))
                    if not is_trusted:
                        break
            except ValueError:
                return peer
        return found

    def _parse(self, text: str) -> tuple[str, bool]:
        """Return an address in its normal form, and whether it is a trusted proxy.

        An IPv6 zone is dropped. An IPv4 address that is mapped into IPv6 becomes IPv4.

        Raises:
            ValueError: it is no address.
        """
        address = ip_address(text.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return str(address), any(address in network for network in self._trusted)


def _entries_from_the_right(request: HeaderSource) -> Iterator[str]:
    """Return the entries of all headers X-Forwarded-For, which are one list (RFC 9110, section 5.3)."""
    for value in reversed(request.headers(_HEADER)):
        yield from reversed(value.split(","))


def _without_port(entry: str) -> str:
    """Return the address in an entry, without brackets and port.

    Raises:
        ValueError: the brackets or the port are malformed.
    """
    match = _ENTRY.fullmatch(entry.strip())
    if match is None:
        raise ValueError("not an address with or without a port")
    return match[1] or match[2] or match[3]

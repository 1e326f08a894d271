"""Detects TLS clients that offer only protocols other than HTTP/1.1 (ALPN, RFC 7301).

RFC 7301, section 3.2, requires a fatal alert for them. Python's ssl continues without a protocol instead, and
does not expose what the client offered. So it is read from the bytes of the ClientHello.
"""

from __future__ import annotations

import ssl

PROTOCOL = "http/1.1"
NO_APPLICATION_PROTOCOL = 120
"""The number of the alert; ssl has no constant for it."""

_HANDSHAKE_RECORD, _ALPN = 22, 16
_MAX_HELLO_BYTES = 64 * 1024
"""OpenSSL refuses a longer ClientHello."""


class OfferReader(ssl.SSLObject):
    """A TLS connection that reads the protocols which its client offers."""

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    received: bytearray | None = None
    """The ClientHello as far as it has arrived; None once it has been parsed."""
    is_foreign = False
    """The client offers protocols, and HTTP/1.1 is not among them."""

    def do_handshake(self) -> None:
        """Parse the ClientHello if it is complete, and continue the handshake."""
        if self.received is not None:
            data = self.incoming.read()
            self.incoming.write(data)
            self.received += data
            hello = _hello_in(self.received)
            if hello is not None or len(self.received) > _MAX_HELLO_BYTES:
                self.received = None
                offered = _offered_in(hello or b"")
                self.is_foreign = bool(offered) and PROTOCOL.encode() not in offered
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if not self.outgoing.pending:
                raise
            # asyncio would close without sending the alert. This sends it, and then the client closes.
            raise ssl.SSLWantReadError from None


class OfferContext(ssl.SSLContext):
    """Creates an `OfferReader` for each connection."""

    sslobject_class = OfferReader

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Create a connection on these buffers."""
        connection = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(connection, OfferReader):
            connection.incoming, connection.outgoing = incoming, outgoing
            connection.received = bytearray()
        return connection


def _hello_in(records: bytes | bytearray) -> bytes | None:
    """Return the body of the first handshake message, or None if it is incomplete; it may span records."""
    message, at = b"", 0
    while len(records) >= at + 5 and records[at] == _HANDSHAKE_RECORD:
        end = at + 5 + int.from_bytes(records[at + 3 : at + 5], "big")
        message += records[at + 5 : end]
        at = end
    size = 4 + int.from_bytes(message[1:4], "big")
    return message[4:size] if 4 <= size <= len(message) else None


def _offered_in(hello: bytes) -> list[bytes]:
    """Return the ALPN protocols of a ClientHello (RFC 8446, section 4.1.2); none if it is malformed."""
    reader = _Reader(hello)
    reader.take(34)  # version and random
    for width in (1, 2, 1):  # session id, cipher suites, compression
        reader.vector(width)
    extensions = _Reader(reader.vector(2))
    while extensions.left:
        kind = int.from_bytes(extensions.take(2), "big")
        content = extensions.vector(2)
        if kind == _ALPN:
            names = _Reader(_Reader(content).vector(2))
            found = []
            while names.left:
                found.append(names.vector(1))
            return found
    return []


class _Reader:
    """Reads bytes in order; at the end it returns fewer than requested."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, count: int) -> bytes:
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))

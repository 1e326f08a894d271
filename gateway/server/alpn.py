"""Whether a TLS client offers only protocols that we do not speak (ALPN, RFC 7301).

Python's ssl goes on without a protocol then, where section 3.2 wants an alert, and shows the offer nowhere.
So it is read from the bytes of the ClientHello, before OpenSSL gets them.
"""

from __future__ import annotations

import ssl

PROTOCOL = "http/1.1"
NO_APPLICATION_PROTOCOL = 120
"""The alert; ssl has no name for it."""

_HANDSHAKE_RECORD, _ALPN = 22, 16
_LONGEST_BYTES = 64 * 1024
"""OpenSSL refuses a longer ClientHello itself."""


class OfferReader(ssl.SSLObject):
    """A TLS connection that knows what its client can speak."""

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    came: bytearray | None = None
    """What came of the ClientHello; None once that is read."""
    is_foreign = False
    """It offers protocols, and HTTP/1.1 is not among them."""

    def do_handshake(self) -> None:
        """Look at what came, and go on with the handshake."""
        if self.came is not None:
            data = self.incoming.read()
            self.incoming.write(data)
            self.came += data
            hello = _hello_in(self.came)
            if hello is not None or len(self.came) > _LONGEST_BYTES:
                self.came = None
                offered = _offered_in(hello or b"")
                self.is_foreign = bool(offered) and PROTOCOL.encode() not in offered
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if not self.outgoing.pending:
                raise
            # asyncio would close without sending the alert; so it goes out first, and the client closes.
            raise ssl.SSLWantReadError from None


class OfferContext(ssl.SSLContext):
    """Makes such connections."""

    sslobject_class = OfferReader

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Make one on these buffers."""
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, OfferReader):
            made.incoming, made.outgoing, made.came = incoming, outgoing, bytearray()
        return made


def _hello_in(records: bytes | bytearray) -> bytes | None:
    """Return the body of the first handshake message, if it is there in full; it may span several records."""
    message, at = b"", 0
    while len(records) >= at + 5 and records[at] == _HANDSHAKE_RECORD:
        end = at + 5 + int.from_bytes(records[at + 3 : at + 5], "big")
        message += records[at + 5 : end]
        at = end
    size = 4 + int.from_bytes(message[1:4], "big")
    return message[4:size] if 4 <= size <= len(message) else None


def _offered_in(hello: bytes) -> list[bytes]:
    """Return the protocols of a ClientHello (RFC 8446, section 4.1.2); none if it is malformed."""
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
    """Takes bytes from the front; at the end there are fewer, or none."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, count: int) -> bytes:
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))

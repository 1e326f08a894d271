"""Why the server refuses a request or ends it; the application turns these into responses.

* RequestError
    * InvalidRequest: the bytes are not HTTP/1.1, or are ambiguous
    * UnsupportedTransferCoding: the body is in a coding other than chunked
    * RequestTimeout: the request did not arrive in time
    * ServerBusy: no room for another connection, or for more of a request
    * PeerDisconnected: the client closed the connection before the response
"""

from __future__ import annotations


class RequestError(Exception):
    """Base class."""


class InvalidRequest(RequestError):
    """Bytes that are not HTTP/1.1, or a message that recipients could parse differently (RFC 9112)."""


class UnsupportedTransferCoding(RequestError):
    """A body in a transfer coding other than chunked (RFC 9112, section 6.1)."""


class RequestTimeout(RequestError):
    """The request head did not arrive within `Timeouts.transfer_s`."""


class ServerBusy(RequestError):
    """No room for another connection, or for more bytes of a request."""


class PeerDisconnected(RequestError):
    """The client closed the connection before the response."""

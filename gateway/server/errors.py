"""Why the server ends a request by itself. It knows no API: an application turns these into answers.

* RequestError
    * MalformedRequest: the bytes are not HTTP/1.1
    * UnsupportedTransferCoding: the body is in a coding other than chunked
    * RequestTimeout: the request did not arrive in time
    * ServerBusy: no room for another connection, or for more of a request
    * ClientDisconnected: the client closed the connection before the answer
"""

from __future__ import annotations


class RequestError(Exception):
    """Root of the tree."""


class MalformedRequest(RequestError):
    """Bytes that are not HTTP, or a message that others could read otherwise (RFC 9112)."""


class UnsupportedTransferCoding(RequestError):
    """A body in a transfer coding other than chunked (RFC 9112, section 6.1)."""


class RequestTimeout(RequestError):
    """The request did not arrive within `Timeouts.transfer_s`."""


class ServerBusy(RequestError):
    """No room for another connection, or for more bytes of a request."""


class ClientDisconnected(RequestError):
    """The client closed the connection before it was answered."""

"""miniflare's way to a remote binding: every call goes to ``/``, and headers tell what it was."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.domain.errors import NoRoute
from gateway.server.message import HttpRequest

BINDING_HOST = "workers-binding.ai"
"""The host that the AI binding calls; it names the binding and is never looked up."""

_PREFIX = b"mf-header-"
# They describe the Worker's own connection, not this one.
_FRAMING = {b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"}


def unwrap_miniflare(request: HttpRequest) -> bool:
    """Turn a call to ``/`` with ``MF-URL`` into the call that the Worker made; leave others alone.

    The headers behind ``MF-Header-`` are added and replace nothing: the connection's own headers (Host,
    Origin, Authorization) stay visible to the checks. The route is matched afterwards, so that each route
    keeps its own demand for a token.

    Returns:
        Whether it was such a call.

    Raises:
        NoRoute: the URL is none of the AI binding's.
    """
    if request.raw_path != "/":
        return False
    urls = request.headers(b"mf-url")
    if not urls:
        return False
    try:
        url = urlsplit(urls[0])
        host = url.hostname
    except ValueError:
        raise NoRoute from None
    if host != BINDING_HOST:
        raise NoRoute
    inner = [
        (name[len(_PREFIX) :], value)
        for name, value in request.all_headers
        if name.startswith(_PREFIX) and name[len(_PREFIX) :] not in _FRAMING
    ]
    request.retarget(url.path, url.query, inner)
    return True

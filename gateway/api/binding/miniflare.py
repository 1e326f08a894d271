"""miniflare's way to a remote binding: every call goes to ``/``, and headers tell what it was."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.domain.errors import NoRoute
from gateway.server.message import HttpRequest

BINDING_HOST = "workers-binding.ai"
"""The host that the AI binding calls; it names the binding and is never looked up."""

_PREFIX = b"mf-header-"
# What these say is true of the Worker's own connection, not of this one.
_FRAMING = {b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"}


def unwrap_miniflare(request: HttpRequest) -> None:
    """Turn a call to ``/`` with ``MF-URL`` into the call that the Worker made; leave others alone.

    The headers behind ``MF-Header-`` are added, and take nothing away: what the connection said about
    itself (Host, Origin, Authorization) stays in view of the checks. The route is looked for afterwards,
    so that each keeps its own demand for a token.

    Raises:
        NoRoute: the URL is none of the AI binding's.
    """
    if request.raw_path != "/":
        return
    urls = request.headers(b"mf-url")
    if not urls:
        return
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

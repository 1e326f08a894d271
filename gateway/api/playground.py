"""Files that anyone may fetch: the description of the API, as JSON and as a page, and the playground."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from gateway.api.context import RequestContext
from gateway.api.router import Handler
from gateway.domain.errors import NoRoute
from gateway.server.message import Header, Response

_FOLDER = Path(__file__).parent / "static"
DESCRIPTION = "/openapi.json"
_MEDIA_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
}
_PAGES = {"/": "playground.html", "/reference": "reference.html"}
_ASSETS = sorted(file.name for file in _FOLDER.iterdir() if file.suffix in (".css", ".js"))
ASSET = "/assets/{file}"
"""Template of the paths of what the pages load."""
PLAYGROUND = {
    path: (name, _MEDIA_TYPES[Path(name).suffix])
    for path, name in (*_PAGES.items(), *((f"/assets/{name}", name) for name in _ASSETS))
}
"""Path, file and media type of each part of the playground and of the page about the API."""

_NO_CACHE: Header = (b"cache-control", b"no-cache")
_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
_SECURITY_HEADERS: list[Header] = [
    _NO_CACHE,
    # The page holds a token: it connects to this gateway alone, and no site may frame it.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    _NOSNIFF,
    (b"x-frame-options", b"DENY"),
]


def description(*, playground: bool) -> bytes:
    """Return the OpenAPI 3.1 document of the gateway, with or without the paths of the playground."""
    document: dict[str, Any] = msgspec.json.decode((_FOLDER / "openapi.json").read_bytes())
    document["info"]["version"] = version("tritonflare")
    if not playground:
        document["paths"] = {
            path: item for path, item in document["paths"].items() if path not in (*_PAGES, ASSET)
        }
    return msgspec.json.encode(document)


def serve_description(*, playground: bool) -> Handler:
    """Return the handler of ``GET /openapi.json``."""
    body = description(playground=playground)

    async def handler(request: RequestContext) -> Response:
        return Response(200, body, headers=[_NO_CACHE, _NOSNIFF], is_static=True)

    return handler


def serve_playground() -> dict[str, Handler]:
    """Return the handler of each page and of what the pages load, by the template of its path."""
    files = {path: ((_FOLDER / name).read_bytes(), kind) for path, (name, kind) in PLAYGROUND.items()}

    async def handler(request: RequestContext) -> Response:
        path = ASSET.format(**request.params) if request.params else request.http.raw_path
        if path not in files:
            raise NoRoute
        body, content_type = files[path]
        return Response(200, body, content_type=content_type, headers=list(_SECURITY_HEADERS), is_static=True)

    return dict.fromkeys((*_PAGES, ASSET), handler)

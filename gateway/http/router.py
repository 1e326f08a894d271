"""Routes on the raw path: segments are split first and decoded once after.

So ``%2F`` inside a model name is a slash of the name, as official SDKs send it, and a plain slash works
as well; and nobody can smuggle a separator into an account id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.routing import compile_path

from gateway.domain.errors import MethodNotSupported, NoRoute
from gateway.http.asgi import Request, Response

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path template, as Starlette writes it: ``{name}`` is a segment, ``{name:path}`` all that follow."""

    methods: tuple[str, ...]
    template: str
    handler: Handler
    api: bool = True
    """Part of the v4 API: a token that fits ``{account_id}`` is required, and requests are counted."""
    checks_token: bool = False
    """The handler looks at the token by itself."""
    tokenless: bool = False
    """A binding's route: with ``binding_without_token``, local development needs no token for it."""


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(*compile_path(route.template)[:2], route) for route in routes]

    def match(self, request: Request) -> Route:
        """Find the route and fill ``request.params`` and ``request.route``.

        Raises:
            NoRoute: no template fits the path.
            MethodNotSupported: one does, but not for this method.
        """
        path = request.raw_path
        for pattern, name, route in self._routes:
            found = pattern.match(path)
            if found is None or "" in found.groups():
                continue
            request.route, request.api = name, route.api
            if request.method not in route.methods:
                raise MethodNotSupported(request.method, route.methods)
            request.params = {name: unquote(value) for name, value in found.groupdict().items()}
            return route
        raise NoRoute

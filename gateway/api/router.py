"""Routes on the raw path: segments are split first and decoded once after.

So ``%2F`` inside a model name is a slash of the name, as official SDKs send it, and a plain slash works
as well; and no separator can be smuggled into an account id.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from gateway.api.context import RenderFailure, RequestContext
from gateway.domain.errors import MethodNotSupported, NoRoute
from gateway.server.message import Response

_KNOWN_PATHS = 256
"""Paths that are matched once; clients use few; one that makes up many pays for the matching."""

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")

Handler = Callable[[RequestContext], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path template: ``{name}`` is a segment, ``{name:path}`` all that follow."""

    methods: tuple[str, ...]
    template: str
    handler: Handler
    api: bool = True
    """Part of the v4 API: a token that fits ``{account_id}`` is required, and requests are counted."""
    checks_token: bool = False
    """The handler checks the token itself."""
    tokenless: bool = False
    """A binding's route: with ``binding_without_token``, local development needs no token for it."""
    ai_gateway: bool = False
    """One of AI Gateway's, or of a binding: ``cf-aig-authorization`` may carry the token."""
    reserved: frozenset[str] = frozenset()
    """What ``{account_id}`` does not stand for: such paths are those of other APIs."""
    render_failure: RenderFailure | None = None
    """Renders the errors of this route; None for the v4 envelope."""
    label: str = field(init=False)
    """The template as logs show it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.template.replace(":path", ""))

    def pattern(self) -> re.Pattern[str]:
        """Return what matches the paths of this route."""
        parts = _PARAMETER.split(self.template)
        # Literal text, then a name and its kind, and so on.
        groups = (
            re.escape(literal) + f"(?P<{name}>{'.*' if kind else '[^/]+'})"
            for literal, name, kind in zip(parts[::3], parts[1::3], parts[2::3], strict=False)
        )
        return re.compile("".join(groups) + re.escape(parts[-1]))


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(route.pattern(), route) for route in routes]
        self._known: dict[str, tuple[Route, dict[str, str]]] = {}

    def match(self, request: RequestContext) -> Route:
        """Find the route and fill ``request.params`` and ``request.record.route``.

        Raises:
            NoRoute: no template fits the path.
            MethodNotSupported: one does, but not for this method.
        """
        path = request.http.raw_path
        known = self._known.get(path)
        if known is None:
            known = self._find(path)
            if len(self._known) >= _KNOWN_PATHS:
                self._known.clear()
            self._known[path] = known
        route, params = known
        request.record.route, request.api = route.label, route.api
        if route.render_failure is not None:
            request.render_failure = route.render_failure
        if request.http.method not in route.methods:
            raise MethodNotSupported(request.http.method, route.methods)
        request.params = dict(params)
        return route

    def _find(self, path: str) -> tuple[Route, dict[str, str]]:
        for pattern, route in self._routes:
            found = pattern.fullmatch(path)
            if found is None or "" in found.groups():
                continue
            if route.reserved and found["account_id"] in route.reserved:
                continue
            return route, {key: unquote(value) for key, value in found.groupdict().items()}
        raise NoRoute

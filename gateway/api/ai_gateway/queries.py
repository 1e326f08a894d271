"""What a Worker asks ``env.AI.gateway(id)``: the gateway's address, and logs, of which there are none."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import quote

from gateway.addresses import authority
from gateway.api import envelope
from gateway.api.ai_gateway.universal import PROVIDER, foreign
from gateway.api.binding.miniflare import BINDING_HOST
from gateway.api.context import RequestContext
from gateway.domain.errors import NoSuchLog
from gateway.server.message import HttpRequest, Response

_UNIVERSAL = "universal"
"""What ``getUrl()`` asks for without a provider."""
_ANY_ACCOUNT = "local"
"""Stands in the address where the caller's token names no account; a token for any opens it."""


class GatewayQueries:
    """Handlers of ``/ai-gateway/gateways/{gateway_id}/…``.

    Args:
        scheme: ``http`` or ``https``: how this server is reached.
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    async def url(self, context: RequestContext) -> Response:
        """Answer ``getUrl(provider)``: the address under which this server answers as that gateway.

        Raises:
            BadInput: the provider is another than ``workers-ai``.
        """
        provider, gateway = context.params["provider"], context.params["gateway_id"]
        if provider not in (_UNIVERSAL, PROVIDER):
            raise foreign(provider)
        account = context.account if context.account not in ("", "*") else _ANY_ACCOUNT
        place = f"{quote(account, safe='')}/{quote(gateway, safe='')}"
        base = f"{self._scheme}://{_host(context.http)}/v1/{place}/"
        return envelope.success({"url": base if provider == _UNIVERSAL else base + provider})

    async def log(self, context: RequestContext) -> NoReturn:
        """Refuse ``getLog`` and ``patchLog``.

        Raises:
            NoSuchLog: always.
        """
        raise NoSuchLog


def _host(request: HttpRequest) -> str:
    """Return how the client named this server; the name that a wrapped binding has for it is no address."""
    named = request.headers(b"host")
    if named and named[0].partition(":")[0].lower() != BINDING_HOST:
        return named[0]
    return authority(request.server) if request.server is not None else "localhost"

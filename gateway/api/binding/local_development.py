"""Who counts as local development: the check behind ``binding_without_token``.

miniflare's AI plugin has no place for a token. The switch lets it in without one, and must not let in
any other client of the port: another machine, a reverse proxy on this one, or a web page in the
developer's browser, by a cross-site request or by DNS rebinding.
"""

from __future__ import annotations

from gateway.addresses import is_loopback
from gateway.api.binding.miniflare import BINDING_HOST
from gateway.server.message import Address, HttpRequest

_CREDENTIALS = (b"authorization", b"cf-aig-authorization", b"x-auth-key")
# Every browser puts one of these on a request that a script or a form of another site makes.
_BROWSER = (b"origin", b"sec-fetch-site", b"referer")
# Headers, by prefix, that a proxy adds about its client. wrangler's X-Forwarded is not one of them,
# but goes to its own route only, which always asks for a token.
_PROXY = (
    b"cdn-loop",
    b"cf-connecting-ip",
    b"forwarded",
    b"true-client-ip",
    b"via",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-envoy-",
    b"x-forwarded",
    b"x-original-",
    b"x-real-ip",
)
# A page cannot send these to another origin without a preflight, which is answered with 405.
_BINDING = (b"mf-url", b"cf-consn-model-id", b"cf-consn-sdk-version")
# A wrapped binding that lists models sends Host and nothing else. A browser that was given a wrong address
# for that name sends these as well, and lets no script leave all of them out.
_BROWSER_ALWAYS = (b"accept", b"accept-encoding", b"accept-language", b"user-agent")


def is_local_binding(request: HttpRequest) -> bool:
    """Tell whether a Workers binding on this machine makes the request, as far as can be seen.

    All must hold: both ends of the connection are loopback addresses; no credentials are sent (those
    that are sent must be right); no header of a browser or a proxy; Host is a loopback name or the
    binding's own; and a header that only a binding sends, or the binding's Host with nothing that every
    browser sends.
    """
    if not (_loopback_end(request.client) and _loopback_end(request.server)):
        return False
    sent = {name for name, _ in request.all_headers}
    if not sent.isdisjoint((*_CREDENTIALS, *_BROWSER)) or any(name.startswith(_PROXY) for name in sent):
        return False
    hosts = [_host_name(value) for value in request.headers(b"host")]
    if not _are_local(hosts):
        return False
    return not sent.isdisjoint(_BINDING) or (BINDING_HOST in hosts and sent.isdisjoint(_BROWSER_ALWAYS))


def _are_local(hosts: list[str]) -> bool:
    return bool(hosts) and all(host == BINDING_HOST or is_loopback(host) for host in hosts)


def _loopback_end(end: Address | None) -> bool:
    return end is not None and is_loopback(end[0])


def _host_name(value: str) -> str:
    """The Host header without its port."""
    name, colon, port = value.rpartition(":")
    return (name if colon and port.isdigit() else value).lower()

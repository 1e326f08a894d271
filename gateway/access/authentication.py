"""Authentication: bearer tokens, and the v4 API's legacy pair of headers."""

from __future__ import annotations

from gateway.access.tokens import ANY_ACCOUNT, TokenAccess, TokenTable, is_token68, owner_id
from gateway.domain.errors import ForeignAccount, MalformedCredentials, MissingCredentials, UnknownToken
from gateway.headers import HeaderSource

_ACCOUNT_HEADER = b"cf-account-id"
_AI_GATEWAY_HEADER = "cf-aig-authorization"


def authenticate(
    request: HeaderSource, account: str | None, tokens: TokenTable, *, ai_gateway: bool = False
) -> str:
    """Check the request's token.

    Args:
        request: its headers.
        account: the account in the path. None where the protocol has no place for it: then the header
            ``cf-account-id`` may name one.
        tokens: the valid ones.
        ai_gateway: whether the header ``cf-aig-authorization`` may carry the token. At Cloudflare it is for
            the gateway, and Authorization for the provider behind it. A request that carries both needs both
            to be valid for the account.

    Returns:
        The account whose rate the request counts against: the named one, else the only account of the
        token (of Authorization's, if there are two). Empty if neither exists.

    Raises:
        MissingCredentials: no Authorization header, and not both X-Auth-Email and X-Auth-Key.
        MalformedCredentials: an Authorization header that is not ``Bearer <token68>``, or one of the
            headers twice, ``cf-account-id`` included.
        UnknownToken: the token is not in the table, or has expired.
        ForeignAccount: the token belongs to another account.
    """
    given = _tokens_of(request) if ai_gateway else [token_of(request)]
    if account is None:
        named = request.headers(_ACCOUNT_HEADER)
        if len(named) > 1:
            raise MalformedCredentials("cf-account-id")
        account = named[0] if named else None
    found = [tokens.check(token, account) for token in given]
    if TokenAccess.UNKNOWN_TOKEN in found:
        raise UnknownToken
    if TokenAccess.OTHER_ACCOUNT in found:
        raise ForeignAccount
    return tokens.only_account(given[0]) if account is None else account


def batch_owner(request: HeaderSource, account: str, *, ai_gateway: bool = False) -> str:
    """Return who owns the queued batches of a request, and alone may fetch them.

    Args:
        request: one that `authenticate` lets pass.
        account: what `authenticate` returned.
        ai_gateway: see `authenticate`.

    Returns:
        The account. Where the request names none, and its token is for several or for any, they belong to
        that token: others may share none of its accounts.
    """
    if account not in ("", ANY_ACCOUNT):
        return account
    return owner_id((_tokens_of(request) if ai_gateway else [token_of(request)])[0])


def _tokens_of(request: HeaderSource) -> list[str]:
    """Return the token of Authorization (or of the legacy pair), that of AI Gateway's header, or both."""
    own = request.headers(_AI_GATEWAY_HEADER.encode())
    if not own:
        return [token_of(request)]
    token = _bearer(own, _AI_GATEWAY_HEADER)
    if request.headers(b"authorization") or request.headers(b"x-auth-key"):
        return [token_of(request), token]
    return [token]


def token_of(request: HeaderSource) -> str:
    """Return the token that the request carries.

    Raises:
        MissingCredentials: no Authorization header, and not both X-Auth-Email and X-Auth-Key.
        MalformedCredentials: an Authorization header that is not ``Bearer <token68>``, or one of the
            headers twice.
    """
    authorization = request.headers(b"authorization")
    if authorization:
        return _bearer(authorization, "Authorization")
    pair = {"X-Auth-Email": request.headers(b"x-auth-email"), "X-Auth-Key": request.headers(b"x-auth-key")}
    if not all(pair.values()):
        raise MissingCredentials
    repeated = [name for name, values in pair.items() if len(values) > 1]
    if repeated:
        raise MalformedCredentials(*repeated)
    return pair["X-Auth-Key"][0].strip()


def _bearer(values: list[str], header: str) -> str:
    scheme, _, token = values[0].strip().partition(" ")
    token = token.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or not is_token68(token):
        raise MalformedCredentials(header)
    return token

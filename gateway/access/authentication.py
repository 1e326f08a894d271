"""Authentication: bearer tokens, and the v4 API's legacy pair of headers."""

from __future__ import annotations

from gateway.access.tokens import TokenAccess, TokenTable, is_token68
from gateway.domain.errors import ForeignAccount, MalformedCredentials, MissingCredentials, UnknownToken
from gateway.headers import HeaderSource

_ACCOUNT_HEADER = b"cf-account-id"


def authenticate(request: HeaderSource, account: str | None, tokens: TokenTable) -> str:
    """Check the request's token.

    Args:
        request: its headers.
        account: the account in the path. None where the protocol has no place for it: then the header
            ``cf-account-id`` may name one.
        tokens: the valid ones.

    Returns:
        The account whose rate the request counts against: the named one, else the only account of the
        token. Empty if neither exists.

    Raises:
        MissingCredentials: no Authorization header, and not both X-Auth-Email and X-Auth-Key.
        MalformedCredentials: an Authorization header that is not ``Bearer <token68>``, or one of the
            headers twice, ``cf-account-id`` included.
        UnknownToken: the token is not in the table, or has expired.
        ForeignAccount: the token belongs to another account.
    """
    token = token_of(request)
    if account is None:
        named = request.headers(_ACCOUNT_HEADER)
        if len(named) > 1:
            raise MalformedCredentials("cf-account-id")
        account = named[0] if named else None
    match tokens.check(token, account):
        case TokenAccess.UNKNOWN_TOKEN:
            raise UnknownToken
        case TokenAccess.OTHER_ACCOUNT:
            raise ForeignAccount
        case TokenAccess.GRANTED:
            return tokens.only_account(token) if account is None else account


def token_of(request: HeaderSource) -> str:
    """Return the token that the request carries.

    Raises:
        MissingCredentials: no Authorization header, and not both X-Auth-Email and X-Auth-Key.
        MalformedCredentials: an Authorization header that is not ``Bearer <token68>``, or one of the
            headers twice.
    """
    authorization = request.headers(b"authorization")
    if authorization:
        scheme, _, token = authorization[0].strip().partition(" ")
        token = token.strip()
        if len(authorization) > 1 or scheme.lower() != "bearer" or not is_token68(token):
            raise MalformedCredentials("Authorization")
        return token
    pair = {"X-Auth-Email": request.headers(b"x-auth-email"), "X-Auth-Key": request.headers(b"x-auth-key")}
    if not all(pair.values()):
        raise MissingCredentials
    repeated = [name for name, values in pair.items() if len(values) > 1]
    if repeated:
        raise MalformedCredentials(*repeated)
    return pair["X-Auth-Key"][0].strip()

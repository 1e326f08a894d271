"""Authentication of the v4 API: bearer tokens, and the legacy pair of headers."""

from __future__ import annotations

from gateway.access.tokens import TokenAccess, TokenTable, is_token68
from gateway.domain.errors import ForeignAccount, MalformedCredentials, MissingCredentials, UnknownToken
from gateway.server.message import HttpRequest


def authenticate(request: HttpRequest, account: str | None, tokens: TokenTable) -> None:
    """Check that the request's token is valid for ``account``, or, without one, that it is known.

    Raises:
        MissingCredentials: no Authorization header, and not both X-Auth-Email and X-Auth-Key.
        MalformedCredentials: an Authorization header that is not ``Bearer <token68>``, or one of the
            headers twice.
        UnknownToken: the token is not in the table, or has expired.
        ForeignAccount: the token belongs to another account.
    """
    match tokens.check(token_of(request), account):
        case TokenAccess.UNKNOWN_TOKEN:
            raise UnknownToken
        case TokenAccess.OTHER_ACCOUNT:
            raise ForeignAccount
        case TokenAccess.GRANTED:
            return


def token_of(request: HttpRequest) -> str:
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

"""Authentication of the v4 API: bearer tokens, and the legacy pair of headers."""

from __future__ import annotations

from gateway.domain.errors import ForeignAccount, MalformedAuthorization, MissingCredentials, UnknownToken
from gateway.http.asgi import Request
from gateway.tokens import Access, TokenTable, is_token68


def authenticate(request: Request, tokens: TokenTable) -> None:
    """Let the request pass if its token opens the account in its path, or is known where none is named.

    Raises:
        MissingCredentials: no Authorization header, and not both X-Auth-Email and X-Auth-Key.
        MalformedAuthorization: an Authorization header that is not ``Bearer <token68>``.
        UnknownToken: nobody issued this token.
        ForeignAccount: the token belongs to another account.
    """
    match tokens.check(token_of(request), request.params.get("account_id")):
        case Access.UNKNOWN_TOKEN:
            raise UnknownToken
        case Access.OTHER_ACCOUNT:
            raise ForeignAccount
        case Access.GRANTED:
            return


def token_of(request: Request) -> str:
    """Return the token that the request carries.

    Raises:
        MissingCredentials: no Authorization header, and not both X-Auth-Email and X-Auth-Key.
        MalformedAuthorization: an Authorization header that is not ``Bearer <token68>``.
    """
    authorization = request.headers(b"authorization")
    if authorization:
        scheme, _, token = authorization[0].strip().partition(" ")
        token = token.strip()
        if len(authorization) > 1 or scheme.lower() != "bearer" or not is_token68(token):
            raise MalformedAuthorization
        return token
    key = request.headers(b"x-auth-key")
    if not key or not request.headers(b"x-auth-email"):
        raise MissingCredentials
    return key[0].strip()

"""``GET …/tokens/verify``: is this token good? Clients ask before anything else."""

from __future__ import annotations

from gateway.domain.errors import InvalidToken
from gateway.http import envelope
from gateway.http.auth import token_of
from gateway.http.message import Request, Response
from gateway.tokens import Access, TokenTable, token_id

_ACTIVE = {"code": 10000, "message": "This API Token is valid and active", "type": None}


class VerifyToken:
    """Handlers that look at the token themselves, because a bad one has an answer of its own here."""

    def __init__(self, tokens: TokenTable) -> None:
        self._tokens = tokens

    async def of_user(self, request: Request) -> Response:
        """Answer for a token of whichever account."""
        token = token_of(request)
        return _answer(token, self._tokens.check(token, "") is not Access.UNKNOWN_TOKEN)

    async def of_account(self, request: Request) -> Response:
        """Answer for a token that must open the account in the path."""
        token = token_of(request)
        return _answer(token, self._tokens.check(token, request.params["account_id"]) is Access.GRANTED)


def _answer(token: str, valid: bool) -> Response:
    if not valid:
        raise InvalidToken
    return envelope.success({"id": token_id(token), "status": "active"}, messages=[_ACTIVE])

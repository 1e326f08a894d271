"""``GET …/tokens/verify``: is this token good? Clients ask before anything else."""

from __future__ import annotations

import math

from gateway.access.authentication import token_of
from gateway.access.tokens import TokenAccess, TokenTable, token_id
from gateway.access.tokens_file import utc
from gateway.api import envelope
from gateway.api.context import RequestContext
from gateway.domain.errors import InvalidToken
from gateway.server.message import Response

_ACTIVE = {"code": 10000, "message": "This API Token is valid and active", "type": None}


class VerifyToken:
    """Handlers that check the token themselves: an invalid one has an answer of its own here."""

    def __init__(self, tokens: TokenTable) -> None:
        self._tokens = tokens

    async def of_user(self, request: RequestContext) -> Response:
        """Answer for a token of whichever account."""
        token = token_of(request.http)
        return self._answer(token, None)

    async def of_account(self, request: RequestContext) -> Response:
        """Answer for a token that must open the account in the path."""
        token = token_of(request.http)
        return self._answer(token, request.params["account_id"])

    def _answer(self, token: str, account: str | None) -> Response:
        if self._tokens.check(token, account) is not TokenAccess.GRANTED:
            raise InvalidToken
        result: dict[str, object] = {"id": token_id(token), "status": "active"}
        expires = self._tokens.expires(token, account)
        if expires < math.inf:
            result["expires_on"] = utc(expires)
        return envelope.success(result, messages=[_ACTIVE])

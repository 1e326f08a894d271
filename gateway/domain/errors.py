"""Every way in which a request can fail, as one tree.

* TritonflareError
    * FrontError: refused before the AI service (route, method, authentication)
        * NoRoute, MethodNotSupported, MalformedRequest, UnknownTransferCoding, MissingCredentials,
          MalformedCredentials, UnknownToken, InvalidToken, ForeignAccount, MethodNotImplemented,
          NoSuchService, NoSuchLog,
          UnknownError
    * AiError: refused or failed inside the AI service
        * BadInput
            * EmptyInput, QueryTooLong
        * NoSuchModel, NoSuchVersion, NoModelForTask, MalformedBody, BodyTooLarge
        * DeadlineExceeded, RateLimited, BackendFailed
        * Overloaded
            * BatchQueueFull
        * BackendUnavailable
            * ModelUnavailable, ShuttingDown, BatchStoreUnavailable
    * ClientDisconnected: there is no connection left to answer on

Codes and texts follow the public contract of Workers AI; each class carries its HTTP status, its
stable code and whether the same request may succeed later. Messages are shown to callers: they never
contain paths, tracebacks or the texts of another system.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

_SHOWN_MODEL_CHARS = 200
_FORMAT_CODES = {
    "Authorization": 6111,
    "X-Auth-Email": 6102,
    "X-Auth-Key": 6103,
    "cf-account-id": 6003,
    "cf-aig-authorization": 6111,
}

_Error = TypeVar("_Error", bound=BaseException)


def without_frames(error: _Error) -> _Error:
    """Drop the traceback of an error, and the errors that caused it.

    An error that is kept as a value, or that its own frames still reference, is a reference cycle: the locals
    of these frames, texts included, stay in memory until the garbage collector runs. Call this where the
    propagation of an error ends.
    """
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None:
            chain += (link.__cause__, link.__context__)
            link.__cause__ = link.__context__ = link.__traceback__ = None
    return error


class TritonflareError(Exception):
    """Root of the tree; ``message`` is safe to show."""

    status: ClassVar[int] = 500
    code: ClassVar[int] = 0
    retryable: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class FrontError(TritonflareError):
    """Refused by the API front; such answers carry no AI request id."""

    chain: tuple[tuple[int, str], ...] = ()
    """Codes and messages with details."""


class NoRoute(FrontError):
    """No route has this path."""

    status, code = 400, 7000

    def __init__(self) -> None:
        super().__init__("No route for that URI")


class MethodNotSupported(FrontError):
    """The path exists, but not for this method; ``allowed`` lists those that do."""

    status, code = 405, 7001

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} not supported for requested URI.")
        self.allowed = allowed


class MissingCredentials(FrontError):
    """Neither an Authorization header nor the legacy pair of headers."""

    status, code = 400, 9106

    def __init__(self) -> None:
        super().__init__("Missing X-Auth-Key, X-Auth-Email or Authorization headers")


class MalformedCredentials(FrontError):
    """Malformed headers: an Authorization that is not ``Bearer <token68>``, or a header that is repeated."""

    status, code = 400, 6003

    def __init__(self, *headers: str) -> None:
        super().__init__("Invalid request headers")
        self.headers = headers
        self.chain = tuple((_FORMAT_CODES[name], f"Invalid format for {name} header") for name in headers)


class MalformedRequest(FrontError):
    """The bytes are not an HTTP request; the connection is closed after the answer."""

    status, code = 400, 6003

    def __init__(self) -> None:
        super().__init__("Invalid request headers")


class UnknownTransferCoding(FrontError):
    """A body in a transfer coding other than chunks (RFC 9112, section 6.1); the connection is closed."""

    status, code = 501, 6003

    def __init__(self) -> None:
        super().__init__("Transfer-Encoding must be chunked; compress the content itself instead")


class UnknownToken(FrontError):
    """A well-formed token that is not in the table."""

    status, code = 401, 10000

    def __init__(self) -> None:
        super().__init__("Authentication error")


class InvalidToken(FrontError):
    """The token to verify is not in the table, or not for this account."""

    status, code = 401, 1000

    def __init__(self) -> None:
        super().__init__("Invalid API Token")


class ForeignAccount(FrontError):
    """A known token, for another account."""

    status, code = 403, 10000

    def __init__(self) -> None:
        super().__init__("Authentication error")


class MethodNotImplemented(FrontError):
    """A method of a protocol that this server leaves out."""

    status, code = 501, 7001

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class NoSuchService(FrontError):
    """A service whose health is asked for does not exist."""

    status, code = 404, 7000

    def __init__(self, service: str) -> None:
        super().__init__(f"There is no service {service[:_SHOWN_MODEL_CHARS]}")


class NoSuchLog(FrontError):
    """A log of AI Gateway is asked for."""

    status, code = 404, 7002

    def __init__(self) -> None:
        super().__init__("This server keeps no logs of requests")


class UnknownError(FrontError):
    """A defect of the gateway itself; the log has the details, under the ray id."""

    status, code = 500, 10013

    def __init__(self) -> None:
        super().__init__("An unknown error has occurred.")


class AiError(TritonflareError):
    """Refused or failed inside the AI service; such answers carry the AI request id."""


class BadInput(AiError):
    """The body is JSON, but does not match the schema; ``description`` is the validator's message."""

    status, code = 400, 5006

    def __init__(self, description: str) -> None:
        super().__init__(f"Bad input: {description}")
        self.description = description


class EmptyInput(BadInput):
    """There is nothing to read; some APIs have a status of its own for that."""


class QueryTooLong(BadInput):
    """The query alone leaves no room for a token of a context; APIs with other keys have words of their own.

    Args:
        max_tokens: what the model reads of a pair.
    """

    def __init__(self, max_tokens: int) -> None:
        super().__init__(f"Error: '/query' leaves no room for a context: the model reads {max_tokens} tokens")
        self.max_tokens = max_tokens


class NoSuchModel(AiError):
    """No model of this name is served."""

    status, code = 400, 5007

    def __init__(self, model: str) -> None:
        super().__init__(f"No such model {model[:_SHOWN_MODEL_CHARS]} or task")


class NoSuchVersion(AiError):
    """The model is served, in another version."""

    status, code = 400, 5007

    def __init__(self, model: str, asked: str, served: str) -> None:
        shown = _SHOWN_MODEL_CHARS
        super().__init__(f"No version {asked[:shown]} of model {model[:shown]}; version {served} is served")


class NoModelForTask(AiError):
    """The named model is for another task, or none is named and it is not clear which one is meant."""

    status, code = 400, 5007


class MalformedBody(AiError):
    """The body is missing or is not JSON."""

    status, code = 400, 3003

    def __init__(self, what: str) -> None:
        super().__init__(f"Request is missing headers or body: {what}")


class BodyTooLarge(AiError):
    """The body exceeds the configured limit."""

    status, code = 413, 3006

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"Request is too large: the limit is {limit_bytes} bytes")


class DeadlineExceeded(AiError):
    """No answer within the request's deadline."""

    status, code, retryable = 408, 3007, True

    def __init__(self) -> None:
        super().__init__("Request timeout")


class Overloaded(AiError):
    """Too many requests in flight."""

    status, code, retryable, retry_after_s = 429, 3040, True, 0.5

    def __init__(self) -> None:
        super().__init__("Capacity temporarily exceeded, please try again.")


class BatchQueueFull(Overloaded):
    """The account has too many unfinished batches, or the store of batches is full."""

    retry_after_s = 10.0

    def __init__(self) -> None:
        AiError.__init__(self, "Too many batches are queued, please try again later.")


class RateLimited(AiError):
    """The account has used up its requests of this minute."""

    status, code, retryable = 429, 3021, True

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("rate limiting: inference request per min rate reached")
        self.retry_after_s = retry_after_s


class BackendUnavailable(AiError):
    """The model server is away, starting, or stopping."""

    status, code, retryable, retry_after_s = 503, 3050, True, 1.0

    def __init__(self) -> None:
        super().__init__("The model server is not available, please try again.")


class ModelUnavailable(BackendUnavailable):
    """The model server runs, but no longer has the model; callers see no difference."""


class ShuttingDown(BackendUnavailable):
    """The gateway stops and ends a connection or a stream that a client keeps open."""

    def __init__(self) -> None:
        AiError.__init__(self, "The gateway is shutting down, please try again.")


class BatchStoreUnavailable(BackendUnavailable):
    """The store of queued batches cannot be reached or written to; nothing was accepted."""

    retry_after_s = 5.0

    def __init__(self) -> None:
        AiError.__init__(self, "Queued batches are not available, please try again.")


class BackendFailed(AiError):
    """The model server answered with an error, or with a malformed answer."""

    status, code = 500, 8007

    def __init__(self) -> None:
        super().__init__("The model failed to answer.")


class ClientDisconnected(TritonflareError):
    """The caller closed the connection first; the status is only for logs and metrics."""

    status, code = 499, 499

    def __init__(self) -> None:
        super().__init__("Client closed the connection")

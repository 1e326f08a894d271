"""One request at a time from many tasks, repeated where the server says that it may be."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import msgspec

from bulk.errors import BulkError, Refused, Unavailable

if TYPE_CHECKING:
    import aiohttp

_API = "/client/v4"
_REQUEST_TIMEOUT_S = 120.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 15.0
_MAX_OWN_FAULTS = 3
"""How often a request is repeated that the server took and did not answer, because it may be the request."""
_MIN_FAULTY = 3
"""So many requests in a row that a server took and did not answer are its fault, and not theirs."""
_BUSY = frozenset((429, 502, 503, 504))
_PERHAPS = frozenset((408, 500))
_REFUSALS = frozenset((401, 403, 404, 405))
_REFUSAL_CODES = frozenset((5007, 7000, 7001, 9106, 6003, 10000))


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Which server is asked, and as whom."""

    url: str
    """With or without ``/client/v4``."""
    token: str
    account: str
    token_variable: str = "TOKEN"  # noqa: S105 (a name)
    """The environment variable that has the token, for messages."""

    @property
    def base(self) -> str:
        """The address of the account's API, without a slash at its end."""
        root = self.url.rstrip("/").removesuffix(_API)
        return f"{root}{_API}/accounts/{quote(self.account, safe='')}"

    def check(self) -> None:
        """Raise Refused if it is no address, or the token cannot be sent."""
        try:
            parts = urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # half of an IPv6 address, a port that is no number
            is_address = False
        if "@" in self.url:  # it would be shown in messages
            raise Refused("a URL must not have a user name or password; the server wants a token")
        if not is_address:
            raise Refused(f"{self.url} is not a valid address; write it like http://127.0.0.1:8787")
        if not self.token.isprintable():
            raise Refused("the token has a line end or another character that cannot be sent; set it anew")


class ErrorEntry(msgspec.Struct):
    """One of ``errors``."""

    message: str = ""
    code: int = 0

    @property
    def reason(self) -> str:
        """The message without its kind and the number of its request."""
        return self.message.removeprefix("AiError: ").split(" (", 1)[0]


class _Errors(msgspec.Struct):
    errors: list[ErrorEntry] = []


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the server, whatever it says."""

    status: int
    body: bytes
    truncated: bool
    """``x-truncated``: a text had more tokens than the model reads."""
    model_version: str | None
    """``x-model-version``."""
    truncated_texts: str | None
    """``x-truncated-texts``: which of several, such as ``0,3-5``; None if the server does not say."""
    seconds: float
    """From the last attempt's first byte to its answer's last."""

    @property
    def is_ok(self) -> bool:
        """Whether this is the answer that was asked for."""
        return self.status == 200

    @property
    def is_servers_fault(self) -> bool:
        """Whether the same request may be answered another time."""
        return self.status == 408 or self.status >= 500

    def cut(self, count: int) -> list[bool] | None:
        """Return for each of ``count`` texts whether it was cut; None if that is not known."""
        if not self.truncated or count == 1:
            return [self.truncated] * count
        found = [False] * count
        try:
            for run in (self.truncated_texts or "").split(","):
                first, _, last = run.partition("-")
                for place in range(int(first), int(last or first) + 1):
                    found[place] = True
        except (ValueError, IndexError):
            return None
        return found

    def check_version(self, expected: str) -> None:
        """Raise Refused if another version of the model answered; nothing is expected of an empty one."""
        if expected and self.is_ok and self.model_version not in (None, expected):
            raise Refused(
                f"the model was replaced meanwhile: version {self.model_version} answers, and {expected} "
                "did; delete the journal to begin anew"
            )

    @property
    def error(self) -> ErrorEntry:
        """The first error of an answer that is not ok."""
        try:
            errors = msgspec.json.decode(self.body, type=_Errors).errors
        except msgspec.DecodeError:
            errors = []
        return errors[0] if errors else ErrorEntry(f"HTTP status {self.status}", 0)


class ApiClient:
    """Sends requests to one server; a context manager.

    Requests may be sent from many tasks at once. A pause that the server asks for holds all of them, so
    that a busy server is asked again by one after the other and not by all.
    """

    def __init__(
        self, server: ServerAddress, connections: int, patience_s: float = 300.0, ca_file: str | None = None
    ) -> None:
        """Prepare, without connecting.

        Args:
            server: whom to ask.
            connections: the most requests under way at once.
            patience_s: after so many seconds without any answer, `Unavailable` is raised; a pause that the
                server asks for is no longer either.
            ca_file: certificates to trust instead of the machine's, PEM.

        Raises:
            BulkError: aiohttp is not installed.
            Refused: the address is none.
        """
        try:
            import aiohttp  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise BulkError(
                "asking a server needs aiohttp, which is not installed: .venv/bin/pip install -e '.[bulk]'"
            ) from error
        server.check()
        self._aiohttp = aiohttp
        self._server = server
        self._connections = connections
        self._patience_s = patience_s
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None
        self._not_before = 0.0
        self._last_answer = time.monotonic()
        self._faulty = 0
        self.retries = 0
        """Requests that were sent again."""

    async def __aenter__(self) -> ApiClient:
        tls = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
        self._session = self._aiohttp.ClientSession(
            connector=self._aiohttp.TCPConnector(limit=self._connections, ssl=tls),
            timeout=self._aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S, sock_connect=10),
            headers={"Authorization": f"Bearer {self._server.token}", "User-Agent": "tritonflare"},
        )
        self._last_answer = time.monotonic()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def run(self, model: str, body: object, *, query: str = "") -> Reply:
        """Ask a model; ``body`` becomes JSON. See `send`."""
        return await self.send("POST", f"/ai/run/{quote(model, safe='@/')}{query}", msgspec.json.encode(body))

    async def get(self, path: str) -> Reply:
        """Ask for something below the account, such as ``/ai/models/search``. See `send`."""
        return await self.send("GET", path, None)

    async def send(self, method: str, path: str, body: bytes | None) -> Reply:
        """Send a request until it is answered.

        429, 502, 503, 504 and broken connections are repeated, after ``retry-after-ms`` or ``Retry-After``
        where there is one. 408 and 500 are repeated three times, without ``x-should-retry: false``.

        Returns:
            The answer, which may be an error that concerns this request alone.

        Raises:
            Refused: the server refuses whatever is asked.
            Unavailable: for ``patience_s``, no request of this client was answered, or each failed at the
                server; or it asks for a longer pause than that.
        """
        faults, pause_s = 0, _FIRST_PAUSE_S
        while True:
            await self._wait_for_turn()
            problem, asked_s = "", None
            try:
                reply, headers = await self._send_once(method, path, body)
            except self._aiohttp.ClientSSLError as error:
                raise Refused(f"no trusted TLS connection to {self._server.url}; see --ca") from error
            except (self._aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                problem = _connection_problem(error)
            else:
                if reply.status in _BUSY:
                    problem, asked_s = reply.error.reason, _asked_pause_s(headers)
                elif reply.status in _PERHAPS and faults < _MAX_OWN_FAULTS and _may_repeat(headers):
                    faults, problem = faults + 1, reply.error.reason
                else:
                    self._raise_if_refused(reply)
                    self._note_answer(reply)
                    return reply
            if not faults:  # else it is the server's fault only if other requests end so too
                self._raise_if_out_of_patience(problem)
            if asked_s is not None and asked_s > self._patience_s:
                raise Unavailable(f"{self._server.url} asks for a pause of {asked_s:,.0f} s: {problem}")
            self.retries += 1
            # Not all at the same moment: neither those that wait for a pause, nor other programs.
            wait_s = (asked_s if asked_s is not None else pause_s) * (1 + 0.25 * random.random())  # noqa: S311
            if asked_s is not None:
                self._not_before = max(self._not_before, time.monotonic() + asked_s)
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _send_once(self, method: str, path: str, body: bytes | None) -> tuple[Reply, dict[str, str]]:
        if self._session is None:
            raise RuntimeError("the client was not entered")
        begun = time.perf_counter()
        headers = {} if body is None else {"Content-Type": "application/json"}
        async with self._session.request(
            method, self._server.base + path, data=body, headers=headers, allow_redirects=False
        ) as response:
            content = await response.read()
            found = {name.lower(): value for name, value in response.headers.items()}
            return (
                Reply(
                    response.status,
                    content,
                    found.get("x-truncated") == "true",
                    found.get("x-model-version"),
                    found.get("x-truncated-texts"),
                    time.perf_counter() - begun,
                ),
                found,
            )

    async def _wait_for_turn(self) -> None:
        while (left_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left_s)

    def _raise_if_refused(self, reply: Reply) -> None:
        error = reply.error if not reply.is_ok else None
        if error is None or (reply.status not in _REFUSALS and error.code not in _REFUSAL_CODES):
            return
        hint = ""
        if error.code in (10000, 9106, 6003):
            hint = f"; is {self._server.token_variable} set to a token of this server?"
        raise Refused(f"{self._server.url} refuses: {error.reason}{hint}")

    def _note_answer(self, reply: Reply) -> None:
        if not reply.is_servers_fault:
            self._last_answer, self._faulty = time.monotonic(), 0
            return
        self._faulty += 1
        if self._faulty >= _MIN_FAULTY:
            self._raise_if_out_of_patience(reply.error.reason)

    def _raise_if_out_of_patience(self, problem: str) -> None:
        if time.monotonic() - self._last_answer > self._patience_s:
            raise Unavailable(f"{self._server.url} gave no answer for {self._patience_s:.0f} s: {problem}")


def _asked_pause_s(headers: dict[str, str]) -> float | None:
    """Return how long the server wants one to wait; a date counts as no word."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    return None


def _may_repeat(headers: dict[str, str]) -> bool:
    return headers.get("x-should-retry") != "false"


def _connection_problem(error: BaseException) -> str:
    """Name the problem without showing what a library says."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, asyncio.TimeoutError):
        return "timeout"
    return "the connection failed"

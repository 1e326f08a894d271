"""Workers AI's API over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtest.checks import References, Scores, outcome_of
from loadtest.options import LoadOptions
from loadtest.reference import classify_sequentially
from loadtest.traffic import PlannedRequest, Refusal, run_url


class HttpRequests:
    """Makes requests to the run route at ``url``."""

    def __init__(self, url: str) -> None:
        self._url = url

    def single(self, kind: str, text: str) -> PlannedRequest:
        """One text."""
        return PlannedRequest(kind, self._url, _as_bytes({"text": text}), (text,))

    def several(self, texts: Sequence[str]) -> PlannedRequest:
        """Several texts in ``requests``."""
        inputs = [{"text": text, "external_reference": str(place)} for place, text in enumerate(texts)]
        return PlannedRequest("several", self._url, _as_bytes({"requests": inputs}), tuple(texts))

    def invalid(self) -> Iterator[PlannedRequest]:
        """Requests without a valid text or model."""

        def refused(body: object, message: str) -> PlannedRequest:
            refusal = Refusal(400, {5006: message})
            return PlannedRequest("invalid", self._url, _as_bytes(body), refusal=refusal)

        yield refused({}, "required properties at '/' are 'text'")
        yield refused([], "required properties at '/' are 'text'")
        yield refused({"text": ""}, "Length of '/text' must be >= 1 not met")
        yield refused({"text": 123}, "Type mismatch of '/text', 'string' not in 'number','integer'")
        yield refused({"text": None}, "Type mismatch of '/text', 'string' not in 'null'")
        yield refused({"text": ["a", "b"]}, "Type mismatch of '/text', 'string' not in 'array','binary'")
        # The contract is not certain which of the two Cloudflare sends on this path.
        unknown = Refusal(400, {5007: "No such model", 7000: "No route for that URI"})
        body = _as_bytes({"text": "Good."})
        yield PlannedRequest("invalid", f"{self._url}-unknown", body, refusal=unknown)


def _as_bytes(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


class HttpProtocol:
    """A ServingProtocol; see there."""

    request_type = "POST"
    description = "HTTP"

    def __init__(self, options: LoadOptions, host: str, token: str) -> None:
        self._options = options
        self._token = token
        self._url = run_url(host, options.account, options.model)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.requests = HttpRequests(self._url)

    def prepare(self) -> None:
        """There is nothing to learn: an answer names its labels."""

    def shared(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def follow(self, shared: Mapping[str, Any]) -> None:
        """There is nothing to take."""

    def classify_sequentially(self, texts: Sequence[str]) -> dict[str, Scores]:
        """As in ServingProtocol."""
        options = self._options
        return classify_sequentially(self._url, self._token, texts, options.timeout, not options.insecure)

    def as_carried(self, scores: Scores) -> Scores:
        """JSON carries doubles as they are."""
        return scores

    def connect(self, session: Any, calls_at_once: int) -> Any:
        """Locust's own session, which opens connections as they are needed."""
        return session

    def ask(self, connection: Any, call: PlannedRequest, references: References) -> tuple[str, int]:
        """As in ServingProtocol."""
        response = connection.post(call.url, data=call.body, headers=self._headers, catch_response=True)
        if not response.status_code:
            return _broken(response.error), 0
        body = response.content or b""
        return outcome_of(call, response.status_code, body, references), len(body)


def _broken(error: BaseException | None) -> str:
    """Name a connection that failed; a timeout is a kind of OSError without number."""
    return "timeout" if isinstance(error, TimeoutError) else f"no answer ({type(error).__name__})"

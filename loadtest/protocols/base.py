"""What a load test needs of a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from loadtest.checks import References, Scores
from loadtest.traffic import PlannedRequest, RequestMaker


class ServingProtocol(Protocol):
    """One protocol, to one model of one server."""

    request_type: str
    """The name of a call in locust's tables."""

    @property
    def description(self) -> str:
        """What the report calls it."""

    @property
    def requests(self) -> RequestMaker:
        """Makes the requests of each kind of traffic."""

    def prepare(self) -> None:
        """Learn what is needed to read answers, once, before any other call.

        Raises:
            NoReferenceError: the address is not valid, or the server does not answer.
        """

    def shared(self) -> dict[str, Any]:
        """What ``prepare`` learned, as plain values for the other processes of this run."""

    def follow(self, shared: Mapping[str, Any]) -> None:
        """Take what another process learned, instead of ``prepare``."""

    def classify_sequentially(self, texts: Sequence[str]) -> dict[str, Scores]:
        """Ask ``texts`` one after the other on one connection.

        Raises:
            NoReferenceError: the server does not answer, or an answer is not a classification.
        """

    def as_carried(self, scores: Scores) -> Scores:
        """A reference in the precision that this protocol has."""

    def connect(self, session: Any, calls_at_once: int) -> Any:
        """What ``ask`` sends at most ``calls_at_once`` calls over; ``session`` is locust's own, for HTTP."""

    def ask(self, connection: Any, call: PlannedRequest, references: References) -> tuple[str, int]:
        """Send a call; its outcome, and the length of its answer in bytes."""

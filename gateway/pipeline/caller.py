"""The client of a request, as the pipeline sees it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.pipeline.deadline import DisconnectSource
from gateway.telemetry.record import RequestRecord


@dataclass(frozen=True, slots=True)
class Caller:
    """One authenticated request, whatever its protocol."""

    account: str
    """The account whose rate it counts against; see `authenticate`."""
    record: RequestRecord
    """Receives the model and the timing."""
    connection: DisconnectSource | None = None
    """None where the protocol's server cancels the task of a client that has disconnected."""
    patience_s: float | None = None
    """How long the client itself waits; None without a deadline of its own."""
    batch_owner: str = ""
    """Who owns the batches that it queues, and alone may fetch them."""

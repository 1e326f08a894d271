"""The messages between the worker pool and a worker, through the pipe of `WorkerSpec.link`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it serves, and its models answer."""


@dataclass(frozen=True, slots=True)
class Refused:
    """From a worker: it cannot start."""

    reason: str
    """The text of the ConfigurationError."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """To a worker: send new calls to another Triton."""

    url: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """From a worker: the outcome of a `HandOver`."""

    url: str
    succeeded: bool
    """If so, no call is under way at the Triton before; otherwise nothing has changed."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """To a worker, and back at the next turn of its event loop."""


@dataclass(frozen=True, slots=True)
class EndNow:
    """To a worker: close all connections and end."""


ToWorker = HandOver | Heartbeat | EndNow
FromWorker = Ready | Refused | HandedOver | Heartbeat

"""The calls that are open, and how many there may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.domain.errors import Overloaded
from gateway.inference_protocol.grpc.call import Call
from gateway.pipeline.deadline import RequestDeadline

_TOKENLESS_SHARE = 8
"""Watchers may be one for so many streams, and so may probes."""


class OpenCalls:
    """Bounds calls with a token, watchers and probes, each for themselves.

    Watchers are calls without a token that stay open: of Watch and reflection. Probes are other calls without
    a token. A prober sends its message and reads the response at once, so where there are too many, the
    oldest one ends: clients that do neither do not keep others from probing.

    Args:
        max_streams: how many calls with a token may be open.
    """

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._max_tokenless = max(1, max_streams // _TOKENLESS_SHARE)
        self.with_token = 0
        self._watchers = 0
        self._probes = 0
        self._waiting: dict[RequestDeadline, None] = {}

    def check(self, call: Call) -> None:
        """Check that one more call may be open.

        Raises:
            Overloaded: there are too many.
        """
        if not call.tokenless:
            if self.with_token >= self._max_streams:
                raise Overloaded
        elif call.watcher:
            if self._watchers >= self._max_tokenless:
                raise Overloaded
        elif self._probes >= self._max_tokenless:
            if not self._waiting:
                raise Overloaded
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.expire()

    def change(self, call: Call, by: int) -> None:
        """Count a call that opens, or closes."""
        if not call.tokenless:
            self.with_token += by
        elif call.watcher:
            self._watchers += by
        else:
            self._probes += by

    @contextmanager
    def probing(self, timeout_s: float) -> Iterator[None]:
        """Limit the time in which a prober sends its message and reads the response.

        Raises:
            DeadlineExceeded: time is up, or others need the place.
        """
        with RequestDeadline(timeout_s) as deadline:
            self._waiting[deadline] = None
            try:
                yield
            finally:
                self._waiting.pop(deadline, None)

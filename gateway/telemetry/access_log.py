"""The access log: one line for each request, written in blocks.

Python's logging takes a tenth of the time of a whole request for one record (docs/measurements.md has the
measurement), so these lines bypass it, to the same stream and in the same format.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextlib import suppress

import msgspec

from gateway.telemetry.logs import LogFormat, utc
from gateway.telemetry.record import RequestRecord

FLUSH_S = 0.1
"""Longest time that a line waits for others; a killed process loses at most these lines."""
_BLOCK = 256
_LOGGER = "tritonflare.access"


class _Line(msgspec.Struct, omit_defaults=True):
    """A line of JSON, its fields in this order; docs/observability.md lists them."""

    time: str
    level: str
    logger: str
    method: str
    route: str
    status: int
    code: int
    ms: float
    ray: str
    model: str
    version: str | None = None
    id: str | None = None
    queue_ms: float | None = None
    triton_ms: float | None = None
    trace_id: str | None = None
    client: str | None = None
    grpc_status: str | None = None


_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Writes lines about requests to stderr; for use inside the event loop.

    Args:
        level: the log level; requests to the API are lines of level ``info``, those of operators ``debug``.
        share: fraction of the successful requests that are written, 0 to 1; others always are.
        form: text or JSON.
    """

    def __init__(self, level: str, share: float, form: LogFormat = "text") -> None:
        self._least = logging.getLevelName(level.upper())
        self._share = share
        self._render = self._json if form == "json" else self._text
        self._owed = 0.0
        self._lines: list[str] = []
        self._second = -1
        self._clock = ""

    def add(self, record: RequestRecord, *, api: bool) -> None:
        """Add the line of a request, unless the level or the share excludes it."""
        level = logging.INFO if api else logging.DEBUG
        if level < self._least:
            return
        if record.status < 400 and self._share < 1:
            self._owed += self._share
            if self._owed < 1:
                return
            self._owed -= 1
        self._lines.append(self._render(record, "INFO" if api else "DEBUG"))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        elif len(self._lines) >= _BLOCK:
            self.flush()

    def _text(self, record: RequestRecord, level: str) -> str:
        version = f" version={record.version}" if record.version is not None else ""
        client = f" client={record.client}" if record.client is not None else ""
        grpc = f" grpc={record.grpc_status}" if record.grpc_status is not None else ""
        return (
            f"{self._now()} {level} {_LOGGER}: {record.method} {record.route} status={record.status} "
            f"code={record.code} ms={1000 * record.seconds:.1f} ray={record.ray_id}{version} "
            f"id={record.ai_request_id or '-'}{client}{grpc}\n"
        )

    def _json(self, record: RequestRecord, level: str) -> str:
        line = _Line(
            utc(time.time()),
            level.lower(),
            _LOGGER,
            record.method,
            record.route,
            record.status,
            record.code,
            _ms(record.seconds),
            record.ray_id,
            record.model,
            record.version,
            record.ai_request_id,
            trace_id=record.trace_id,
            client=record.client,
            grpc_status=record.grpc_status,
        )
        if record.timing is not None:
            line.queue_ms, line.triton_ms = map(_ms, record.timing)
        return _encode(line).decode() + "\n"

    def flush(self) -> None:
        """Write the waiting lines."""
        block, self._lines = "".join(self._lines), []
        if block:
            # A full disk or a closed pipe must not fail a request.
            with suppress(OSError, ValueError):
                sys.stderr.write(block)
                sys.stderr.flush()

    def _now(self) -> str:
        """Return the local time with milliseconds; each second is formatted once."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
        return f"{self._clock}.{int(1000 * (now - second)):03d}"


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)

"""Logging to stderr: one compact line for each event, without texts of callers."""

from __future__ import annotations

import logging
import logging.config
import traceback
from datetime import datetime, timezone
from types import TracebackType
from typing import Literal

import msgspec

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"

LogFormat = Literal["text", "json"]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def utc(seconds: float) -> str:
    """Format a time since the epoch for JSON lines: ``2026-11-22T10:15:30.123Z`` (RFC 3339)."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class QuietFormatter(logging.Formatter):
    """Formats an exception as its class and its place in the code.

    A traceback contains paths of the machine, and an exception's message may quote a caller's text.
    The level ``debug`` uses Python's own format.
    """

    def formatException(self, ei: ExcInfo) -> str:
        """Name the exception's class, then module and line of each frame, innermost first."""
        kind, _, trace = ei
        frames = [f"{f.f_globals.get('__name__', '?')}:{line}" for f, line in traceback.walk_tb(trace)]
        return f"{kind.__name__ if kind else 'exception'} at {' < '.join(reversed(frames))}"


class JsonFormatter(QuietFormatter):
    """One JSON object for each line; exceptions as in QuietFormatter, at every level."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode time, level, logger and message; and, if present, the request's ray and the exception."""
        line: dict[str, str] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        ray = getattr(record, "ray", None)
        if isinstance(ray, str):
            line["ray"] = ray
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: str, form: LogFormat = "text") -> None:
    """Send every log line of at least ``level`` to stderr, as text or as JSON.

    Other libraries only warn.
    """
    # None of these is in the format, and each record would pay for them ("Optimization" in the manual).
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    formatter: type[logging.Formatter] = logging.Formatter if level == "debug" else QuietFormatter
    if form == "json":
        formatter = JsonFormatter
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {"()": formatter, "format": _FORMAT, "datefmt": "%Y-%m-%dT%H:%M:%S"},
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"tritonflare": {"level": level.upper()}},
        }
    )

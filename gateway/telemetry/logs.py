"""Logging to stderr: one compact line an event, and nobody's words that could quote a caller."""

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
    """Spell a time since the epoch as lines of JSON do: ``2026-11-22T10:15:30.123Z`` (RFC 3339)."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class QuietFormatter(logging.Formatter):
    """Says of an exception what it is and where it happened, and no more.

    A traceback shows paths of the machine, and an exception's message may quote somebody's text.
    The level ``debug`` keeps Python's own form.
    """

    def formatException(self, ei: ExcInfo) -> str:
        """Name the exception's class, then module and line of each frame, innermost first."""
        kind, _, trace = ei
        frames = [f"{f.f_globals.get('__name__', '?')}:{line}" for f, line in traceback.walk_tb(trace)]
        return f"{kind.__name__ if kind else 'exception'} at {' < '.join(reversed(frames))}"


class JsonFormatter(QuietFormatter):
    """One object a line, with an exception as QuietFormatter says it, at every level."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode time, level, logger and message; the ray of the request and the exception if there are."""
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
    # Nothing of this is in the format, and each record would pay for it ("Optimization" in its manual).
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

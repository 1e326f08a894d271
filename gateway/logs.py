"""Logging to stderr: one compact line an event, and nobody's words that could quote a caller."""

from __future__ import annotations

import logging
import logging.config
import traceback
from types import TracebackType

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"


class QuietFormatter(logging.Formatter):
    """Says of an exception what it is and where it happened, and no more.

    A traceback shows paths of the machine, and an exception's message may quote somebody's text.
    The level ``debug`` keeps Python's own form.
    """

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Name the exception's class, then module and line of each frame, innermost first."""
        kind, _, trace = ei
        frames = [f"{f.f_globals.get('__name__', '?')}:{line}" for f, line in traceback.walk_tb(trace)]
        return f"{kind.__name__ if kind else 'exception'} at {' < '.join(reversed(frames))}"


def configure_logging(level: str) -> None:
    """Send every log line of at least ``level`` to stderr.

    Other libraries only warn.
    """
    # Nothing of this is in the format, and each record would pay for it ("Optimization" in its manual).
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {
                    "()": logging.Formatter if level == "debug" else QuietFormatter,
                    "format": _FORMAT,
                    "datefmt": "%Y-%m-%dT%H:%M:%S",
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"tritonflare": {"level": level.upper()}},
        }
    )

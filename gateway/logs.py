"""Logging to stderr: one compact line an event, for the gateway and for uvicorn alike."""

from __future__ import annotations

import logging
import logging.config

ACCESS_LOGGER = "tritonflare.access"
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"


def configure_logging(level: str) -> None:
    """Send every log line of at least ``level`` to stderr.

    uvicorn's own access log stays off (it would write query strings); grpc and asyncio only warn.
    """
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": _FORMAT, "datefmt": "%Y-%m-%dT%H:%M:%S"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"tritonflare": {"level": level.upper()}, "uvicorn": {"level": "WARNING"}},
        }
    )

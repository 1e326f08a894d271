"""SIGTERM and SIGINT as events."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_set(stop: asyncio.Event, at_once: asyncio.Event) -> Iterator[None]:
    """First SIGTERM or SIGINT: stop gracefully. Second: at once."""

    def on_signal() -> None:
        if stop.is_set():
            at_once.set()
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    watched = (signal.SIGTERM, signal.SIGINT)
    for number in watched:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in watched:
            loop.remove_signal_handler(number)

"""SIGINT and SIGTERM: nothing new is sent, what is under way is waited for, and then comes the report.

Locust itself waits out its stop timeout on the first, sending on, and ends without a report on the second.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

import gevent
from locust.runners import MasterRunner, WorkerRunner

from loadtest.generator import Run

_log = logging.getLogger(__name__)


class Stopping:
    """Ends a run early, in the process of ``runner``: alone, as the master or as one of its workers."""

    def __init__(self, run: Run, runner: Any) -> None:
        self._run = run
        self._runner = runner
        self._since: float | None = None
        self._at_once = False

    def listen(self) -> None:
        """Take both signals over for as long as there is load."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # A handler must not wait for anything, so what it does is a greenlet's.
            signal.signal(number, lambda _number, _frame: gevent.spawn(self._on_signal))

    def over(self, *, waited_for_all: bool) -> bool:
        """Whether the run has been ended early, and waited for its answers long enough."""
        if self._since is None:
            return False
        waited_s = time.perf_counter() - self._since
        return self._at_once or waited_for_all or waited_s > self._run.options.timeout

    def _on_signal(self) -> None:
        if self._since is not None:
            self._end_at_once()
            return
        self._since = time.perf_counter()
        _log.warning(
            "stopping: nothing new is sent; answers under way are waited for up to %g s. "
            "Once more gives them up.",
            self._run.options.timeout,
        )
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message("stop_sending")
        self._run.stop_sending()

    def _end_at_once(self) -> None:
        self._at_once = True
        self._runner.user_greenlets.kill(block=False)
        if isinstance(self._runner, WorkerRunner):
            # Otherwise the master ends the run; without users there is nothing to wait for.
            self._runner.quit()

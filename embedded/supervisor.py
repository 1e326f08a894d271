"""Keeps a Triton serving: starts it anew when it dies or is stuck, and another one for a new version."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from embedded.canary import Canary
from embedded.errors import EmbeddedError, EndedWhileStarting, GivenUp, PortInUse
from embedded.processes import Processes
from embedded.repository import Model
from embedded.server import RESTRICTED_KEY, TritonServer
from embedded.snapshot import Releases, Snapshot
from embedded.vitals import Trouble, Vitals

_log = logging.getLogger("tritonflare.embedded")

_ATTEMPTS = 3
"""At a start, before it counts as failed: Triton was seen to die of a race between its threads."""
_THREAD_START_S = 1.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 4.0
"""Between two starts: Triton is back within five seconds after what kept it away is gone."""
_STEADY_S = 30.0
"""A Triton that served this long did not fail at its start: the next comes without a pause."""
_POLL_S = 0.1
_SAID: dict[Trouble, str] = {
    "ended": "has ended by itself",
    "stub": "has lost one of its processes",
    "failing": "answers with nothing but errors",
    "wedged": "does not answer any more",
}


@dataclass(frozen=True)
class Reports:
    """Whom the supervisor tells; all are called in its thread.

    Args:
        restarted: Triton has to be started anew, and why.
        move: send new requests to this address; the future is done when none is under way at the old one.
        failed: the supervisor has failed and will do nothing any more.
    """

    restarted: Callable[[Trouble], None]
    move: Callable[[str], Future[None]]
    failed: Callable[[], None]


@dataclass(frozen=True)
class _Served:
    """A running server and the snapshot that it serves."""

    server: TritonServer
    snapshot: Snapshot


class TritonSupervisor:
    """A Triton that comes back, and that gives way to a new version without a pause.

    One thread, as long-lived as the supervisor, starts and watches everything. Each version is served
    from a private snapshot, so that a start after a fault serves what was served before, whatever
    happened to the repository meanwhile. Use as a context manager.

    Args:
        repository: the model repository.
        port: gRPC port on 127.0.0.1 of the first version; 0 takes a free one.
        watch: look at the repository for a new version all the time, not only when told to.
        otlp_endpoint: see `TritonServer`.
    """

    def __init__(
        self, repository: Path, port: int = 0, *, watch: bool = False, otlp_endpoint: str | None = None
    ) -> None:
        self.secret = secrets.token_urlsafe(32)
        self._releases = Releases(repository)
        self._port = port
        self._watch = watch
        self._otlp_endpoint = otlp_endpoint
        self._served: _Served | None = None
        self._failures = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping, self._reloading = threading.Event(), threading.Event()
        self._ready, self._wired = threading.Event(), threading.Event()
        self._begun = threading.Event()
        self._reports: Reports | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="triton-supervisor", daemon=True)

    @property
    def address(self) -> str:
        """Where Triton listens for gRPC now, as ``host:port``."""
        return self._now.server.address

    @property
    def models(self) -> list[Model]:
        """What is served now."""
        return self._now.server.models

    @property
    def _now(self) -> _Served:
        if self._served is None:
            raise EmbeddedError("Triton is not running.")
        return self._served

    def __enter__(self) -> TritonSupervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when Triton serves; it is watched from `report_to` on.

        Raises:
            EmbeddedError: it cannot serve, or failed several times; nothing is left running.
        """
        try:
            self._thread.start()
            self._ready.wait()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self.stop()
            raise

    def report_to(self, reports: Reports) -> None:
        """Begin to watch, and tell what happens."""
        self._reports = reports
        self._wired.set()

    def reload(self) -> None:
        """Look for a new version now; may be called from any thread."""
        self._reloading.set()
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Stop Triton in order, in the middle of a start too, and remove all that was used."""
        self._stopping.set()
        self._wired.set()
        os.eventfd_write(self._wake, 1)
        # A signal may have ended `start` in the middle of the thread's own start.
        if self._begun.wait(_THREAD_START_S):
            self._thread.join()

    def _run(self) -> None:
        self._begun.set()
        try:
            self._served = self._start_release(self._port)
            self._ready.set()
            self._wired.wait()
            while not self._stopping.is_set():
                trouble = self._watch_over(self._now)
                if trouble is not None:
                    self._start_anew(self._now, trouble)
        except GivenUp:
            pass
        except BaseException as error:  # nobody else looks after Triton
            self._failure = error
            if self._ready.is_set() and self._reports is not None:
                _log.exception("the supervisor of Triton has failed")
                self._reports.failed()
        finally:
            if self._served is not None:
                self._served.server.stop()
                self._served.snapshot.remove()
            self._ready.set()

    def _watch_over(self, served: _Served) -> Trouble | None:
        """Return what is wrong with it; None when it is to stop, or another one has taken over."""
        server = served.server
        canary = Canary(server.address, RESTRICTED_KEY, server.secret)
        vitals = Vitals(canary, Processes(server.pid), server.models)
        began = time.monotonic()
        try:
            while not self._stopping.is_set() and self._served is served:
                vitals.wait(self._wake)
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
                trouble = None if self._stopping.is_set() else vitals.look()
                if trouble is not None:
                    return trouble
                if time.monotonic() - began > _STEADY_S:
                    self._failures = 0
                if self._new_version_is_wanted():
                    self._change_version(served, vitals)
            return None
        finally:
            vitals.close()

    def _start(self, snapshot: Snapshot, port: int, unwanted: Callable[[], bool] = lambda: False) -> _Served:
        """Start a server on a snapshot; see `TritonServer.start`."""
        for attempt in range(1, _ATTEMPTS + 1):
            server = TritonServer(
                snapshot.models, port, secret=self.secret, otlp_endpoint=self._otlp_endpoint
            )
            try:
                server.start(lambda: self._stopping.is_set() or unwanted())
                break
            except EndedWhileStarting:
                if attempt == _ATTEMPTS:
                    raise
            _log.warning("Triton ended while starting; trying again")
            self._pause(_FIRST_PAUSE_S * attempt)
        return _Served(server, snapshot)

    def _start_release(self, port: int, unwanted: Callable[[], bool] = lambda: False) -> _Served:
        """Start a server on what is published now."""
        snapshot = self._releases.take()
        try:
            return self._start(snapshot, port, unwanted)
        except BaseException:
            snapshot.remove()
            raise

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise GivenUp("The supervisor stops.")

    def _start_anew(self, broken: _Served, trouble: Trouble) -> None:
        """Kill what is left of a server, and return when another one serves the same version."""
        _log.error("Triton %s; starting it anew", _SAID[trouble])
        broken.server.kill()
        if self._reports is not None:
            self._reports.restarted(trouble)
        port = broken.server.port
        release = False
        while True:
            if self._failures:
                self._pause(min(_FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE_S))
            self._failures += 1
            if not (release or broken.snapshot.is_whole()):
                _log.warning("what was served is not in TMPDIR any more; taking what is published now")
                release = True
            try:
                # Another port for another version: the gateway must know the one from the other.
                fresh = self._start_release(0) if release else self._start(broken.snapshot, port)
                self._take_over(fresh, broken)
                _log.info("Triton serves again")
                return
            except GivenUp:
                raise
            except EmbeddedError as error:
                _log.error("Triton could not be started anew: %s", error)
                if isinstance(error, PortInUse) and port != self._port:
                    port = 0
            # What was published meanwhile may be what can be served.
            release = self._new_version_is_wanted()

    def _new_version_is_wanted(self) -> bool:
        if not self._reloading.is_set():
            return self._watch and self._releases.has_settled()
        self._reloading.clear()
        if self._releases.is_new():
            return True
        _log.info("the repository holds nothing new")
        return False

    def _change_version(self, old: _Served, vitals: Vitals) -> None:
        """Serve what is published now, if it can be served."""
        _log.info("a new version is published; starting a Triton for it")
        try:
            self._take_over(self._start_release(0, lambda: vitals.ended() is not None), old)
        except GivenUp:
            self._releases.forget()
            if self._stopping.is_set():
                raise
        except EmbeddedError as error:
            _log.error("the new version is not served, the old one goes on: %s", error)
        else:
            _log.info("the new version is served")

    def _take_over(self, fresh: _Served, old: _Served) -> None:
        """Have all requests sent to a server, then end the old one."""
        if fresh.server.address != old.server.address:
            try:
                self._move_to(fresh.server.address)
            except BaseException:
                fresh.server.kill()
                if fresh.snapshot is not old.snapshot:
                    fresh.snapshot.remove()
                raise
        self._served = fresh
        old.server.stop()
        if fresh.snapshot is not old.snapshot:
            old.snapshot.remove()

    def _move_to(self, address: str) -> None:
        """Return when no request is under way anywhere else."""
        if self._reports is None:
            return
        try:
            moved = self._reports.move(address)
            while not wait([moved], _POLL_S).done:
                if self._stopping.is_set():
                    moved.cancel()
                    raise GivenUp("The supervisor stops.")
            moved.result()
        except EmbeddedError:
            raise
        except Exception as error:
            if self._stopping.is_set():
                raise GivenUp("The supervisor stops.") from error
            raise EmbeddedError("the gateway could not change over to it.") from error

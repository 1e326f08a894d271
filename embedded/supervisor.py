"""Keeps a Triton serving: restarts it after a fault, and hands over to another one for a new version."""

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
from enum import Enum
from pathlib import Path
from types import TracebackType

from embedded.canary import Canary
from embedded.errors import EmbeddedError, EndedWhileStarting, GivenUp, PortInUse
from embedded.processes import Processes
from embedded.repository import RepositoryModel
from embedded.server import RESTRICTED_KEY, TritonServer
from embedded.snapshot import Releases, Snapshot
from embedded.watchdog import Fault, Watchdog

_log = logging.getLogger("tritonflare.embedded")

_ATTEMPTS = 3
"""At a start, before it counts as failed: Triton was seen to crash in a race between its threads."""
_THREAD_START_S = 1.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 4.0
"""Between two restarts: Triton serves within five seconds after the cause of its fault is gone."""
_STEADY_S = 30.0
"""A Triton that served this long did not fail at its start: it is restarted without a pause."""
_POLL_S = 0.1
_FAULT_TEXTS: dict[Fault, str] = {
    "ended": "ended unexpectedly",
    "stub": "lost one of its python stub processes",
    "failing": "answers with nothing but errors",
    "wedged": "stopped answering",
}


class SupervisorState(Enum):
    """The life of a supervisor, in this order; from SERVING it may restart and hand over many times."""

    NEW = "new"
    STARTING = "starting"
    """The first Triton loads its models."""
    SERVING = "serving"
    RESTARTING = "restarting"
    """After a fault, until a Triton serves again."""
    HANDING_OVER = "handing over"
    """A Triton for a new version loads its models, then takes the calls of the old one, which serves on."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    """Nothing is left running."""


@dataclass(frozen=True)
class SupervisorEvents:
    """Callbacks of the supervisor; all are called in its thread.

    Args:
        triton_restarted: Triton has to be restarted, because of this fault.
        hand_over: send new calls to this address; the future is done when none is under way at the old one.
        failed: the supervisor has failed and does nothing any more.
    """

    triton_restarted: Callable[[Fault], None]
    hand_over: Callable[[str], Future[None]]
    failed: Callable[[], None]


@dataclass(frozen=True)
class _Served:
    """A running server and the snapshot that it serves."""

    server: TritonServer
    snapshot: Snapshot


class TritonSupervisor:
    """Restarts Triton after faults, and replaces it for a new version without interrupting requests.

    One thread, as long-lived as the supervisor, starts and watches everything. Each version is served
    from a private snapshot, so that a restart serves the same version, even if the repository has changed
    meanwhile. Use as a context manager.

    Args:
        repository: the model repository.
        port: gRPC port on 127.0.0.1 of the first version; 0 takes a free one.
        watch: check the repository for a new version all the time, not only on `reload`.
        otlp_endpoint: see `TritonServer`.
        device: see `TritonServer`; ``auto`` is decided for each version.
    """

    def __init__(
        self,
        repository: Path,
        port: int = 0,
        *,
        watch: bool = False,
        otlp_endpoint: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.secret = secrets.token_urlsafe(32)
        self.state = SupervisorState.NEW
        self._releases = Releases(repository)
        self._port = port
        self._watch = watch
        self._otlp_endpoint = otlp_endpoint
        self._device = device
        self._served: _Served | None = None
        self._failures = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping, self._reloading = threading.Event(), threading.Event()
        self._start_done, self._connected = threading.Event(), threading.Event()
        self._thread_begun = threading.Event()
        self._events: SupervisorEvents | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="triton-supervisor", daemon=True)

    @property
    def address(self) -> str:
        """Where Triton listens for gRPC now, as ``host:port``."""
        return self._now.server.address

    @property
    def models(self) -> list[RepositoryModel]:
        """The models that are served now."""
        return self._now.server.models

    @property
    def device(self) -> str:
        """Where they compute: ``cpu`` or ``cuda``."""
        return self._now.server.device

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
        """Return when Triton serves; it is watched after `connect`.

        Raises:
            EmbeddedError: it cannot serve, or failed several times; nothing is left running.
        """
        try:
            self._thread.start()
            self._start_done.wait()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self.stop()
            raise

    def connect(self, events: SupervisorEvents) -> None:
        """Begin to watch, and report what happens."""
        self._events = events
        self._connected.set()

    def reload(self) -> None:
        """Check for a new version now; may be called from any thread."""
        self._reloading.set()
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Stop Triton, also in the middle of a start, and remove its temporary files."""
        self._stopping.set()
        self._connected.set()
        os.eventfd_write(self._wake, 1)
        # A signal may have ended `start` in the middle of the thread's own start.
        if self._thread_begun.wait(_THREAD_START_S):
            self._thread.join()

    def _set_state(self, state: SupervisorState) -> None:
        if state is not self.state:
            _log.debug("supervisor: %s -> %s", self.state.value, state.value)
            self.state = state

    def _run(self) -> None:
        self._thread_begun.set()
        try:
            self._set_state(SupervisorState.STARTING)
            self._served = self._start_release(self._port)
            self._set_state(SupervisorState.SERVING)
            self._start_done.set()
            self._connected.wait()
            while not self._stopping.is_set():
                fault = self._watch_until_fault(self._now)
                if fault is not None:
                    self._restart(self._now, fault)
        except GivenUp:
            pass
        except BaseException as error:  # no other thread supervises Triton
            self._failure = error
            if self._start_done.is_set() and self._events is not None:
                _log.exception("the supervisor of Triton has failed")
                self._events.failed()
        finally:
            self._set_state(SupervisorState.STOPPING)
            if self._served is not None:
                self._served.server.stop()
                self._served.snapshot.remove()
            self._set_state(SupervisorState.STOPPED)
            self._start_done.set()

    def _watch_until_fault(self, served: _Served) -> Fault | None:
        """Return the fault of a server; None when the supervisor stops, or another server has taken over."""
        server = served.server
        canary = Canary(server.address, RESTRICTED_KEY, server.secret)
        watchdog = Watchdog(canary, Processes(server.pid), server.models)
        began = time.monotonic()
        try:
            while not self._stopping.is_set() and self._served is served:
                watchdog.wait(self._wake)
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
                fault = None if self._stopping.is_set() else watchdog.check()
                if fault is not None:
                    return fault
                if time.monotonic() - began > _STEADY_S:
                    self._failures = 0
                if self._has_new_version():
                    self._serve_new_version(served, watchdog)
            return None
        finally:
            watchdog.close()

    def _start(self, snapshot: Snapshot, port: int, unwanted: Callable[[], bool] = lambda: False) -> _Served:
        """Start a server on a snapshot; see `TritonServer.start`."""
        for attempt in range(1, _ATTEMPTS + 1):
            server = TritonServer(
                snapshot.models,
                port,
                secret=self.secret,
                otlp_endpoint=self._otlp_endpoint,
                device=self._device,
            )
            try:
                server.start(lambda: self._stopping.is_set() or unwanted())
                break
            except EndedWhileStarting:
                if attempt == _ATTEMPTS:
                    raise
            _log.warning("Triton ended while starting; starting it again")
            self._pause(_FIRST_PAUSE_S * attempt)
        return _Served(server, snapshot)

    def _start_release(self, port: int, unwanted: Callable[[], bool] = lambda: False) -> _Served:
        """Start a server on the version that is published now."""
        snapshot = self._releases.take()
        try:
            return self._start(snapshot, port, unwanted)
        except BaseException:
            snapshot.remove()
            raise

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise GivenUp("The supervisor stops.")

    def _restart(self, broken: _Served, fault: Fault) -> None:
        """Kill what is left of a server, and return when another one serves the same version."""
        self._set_state(SupervisorState.RESTARTING)
        _log.error("Triton %s; restarting it", _FAULT_TEXTS[fault])
        broken.server.kill()
        if self._events is not None:
            self._events.triton_restarted(fault)
        port = broken.server.port
        use_release = False
        while True:
            if self._failures:
                self._pause(min(_FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE_S))
            self._failures += 1
            if not (use_release or broken.snapshot.is_whole()):
                _log.warning("the served version was removed from TMPDIR; serving the published one")
                use_release = True
            try:
                # Another port for another version, so that the gateway can tell one from the other.
                fresh = self._start_release(0) if use_release else self._start(broken.snapshot, port)
                self._take_over(fresh, broken)
                _log.info("Triton is restarted and serves again")
                return
            except GivenUp:
                raise
            except EmbeddedError as error:
                _log.error("restarting Triton failed: %s", error)
                if isinstance(error, PortInUse) and port != self._port:
                    port = 0
            # A version published meanwhile may start where the old one does not.
            use_release = self._has_new_version()

    def _has_new_version(self) -> bool:
        if not self._reloading.is_set():
            return self._watch and self._releases.has_settled()
        self._reloading.clear()
        if self._releases.is_new():
            return True
        _log.info("reload: no new version is published")
        return False

    def _serve_new_version(self, old: _Served, watchdog: Watchdog) -> None:
        """Hand over to a Triton that serves the published version, if it can be served."""
        self._set_state(SupervisorState.HANDING_OVER)
        _log.info("a new version is published; starting a Triton for it")
        try:
            self._take_over(self._start_release(0, lambda: watchdog.ended() is not None), old)
        except GivenUp:
            self._releases.forget()
            if self._stopping.is_set():
                raise
        except EmbeddedError as error:
            _log.error("the new version cannot be served, the old one is still served: %s", error)
        else:
            _log.info("the new version is served")
        self._set_state(SupervisorState.SERVING)

    def _take_over(self, fresh: _Served, old: _Served) -> None:
        """Have all requests sent to a server, then stop the old one."""
        if fresh.server.address != old.server.address:
            try:
                self._hand_over_to(fresh.server.address)
            except BaseException:
                fresh.server.kill()
                if fresh.snapshot is not old.snapshot:
                    fresh.snapshot.remove()
                raise
        self._served = fresh
        self._set_state(SupervisorState.SERVING)
        old.server.stop()
        if fresh.snapshot is not old.snapshot:
            old.snapshot.remove()

    def _hand_over_to(self, address: str) -> None:
        """Return when the gateway has no call under way at any other address."""
        if self._events is None:
            return
        try:
            handover = self._events.hand_over(address)
            while not wait([handover], _POLL_S).done:
                if self._stopping.is_set():
                    handover.cancel()
                    raise GivenUp("The supervisor stops.")
            handover.result()
        except EmbeddedError:
            raise
        except Exception as error:
            if self._stopping.is_set():
                raise GivenUp("The supervisor stops.") from error
            raise EmbeddedError("the gateway failed the handover to it.") from error

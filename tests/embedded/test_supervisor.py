"""How the supervisor handles faults, with servers that fail on demand."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

import pytest

from embedded import supervisor
from embedded.errors import EmbeddedError, EndedWhileStarting, GivenUp, PortInUse
from embedded.supervisor import SupervisorEvents, SupervisorState, TritonSupervisor
from embedded.watchdog import Fault
from tests.support.servers import wait_until


class Server:
    """A Triton that starts, or does not."""

    faults: ClassVar[deque[EmbeddedError | None]] = deque()
    """What happens at each of the next starts."""
    started: ClassVar[list[Server]] = []
    slow: ClassVar[bool] = False
    ports = itertools.count(1)

    def __init__(
        self, repository: Path, port: int, secret: str, otlp_endpoint: str | None, device: str
    ) -> None:
        self.content = ""
        self.repository = repository
        self.port = port or next(self.ports)
        self.secret = secret
        self.pid = 1
        self.models: list[object] = []
        self.alive = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, unwanted: Callable[[], bool]) -> None:
        while self.slow:
            if unwanted():
                raise GivenUp("unwanted")
            time.sleep(0.01)
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            raise fault
        self.content = (self.repository / "config.pbtxt").read_text()
        self.alive = True
        self.started.append(self)

    def stop(self) -> None:
        self.alive = False

    kill = stop


class Watchdog:
    """Reports the faults that the test has queued."""

    faults: ClassVar[deque[Fault]] = deque()

    def __init__(self, *parts: object) -> None:
        pass

    def close(self) -> None:
        pass

    def wait(self, wake: int) -> None:
        time.sleep(0.01)

    def ended(self) -> Fault | None:
        return None

    def check(self) -> Fault | None:
        return self.faults.popleft() if self.faults else None


class Stage:
    """A supervisor and the events that it has reported."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.restarts: list[str] = []
        self.handovers: list[str] = []
        self.failed = threading.Event()
        self.refusal: Exception | None = None
        self.supervisor = TritonSupervisor(repository, watch=True)

    def __enter__(self) -> Stage:
        self.supervisor.start()
        self.supervisor.connect(SupervisorEvents(self.restarts.append, self._hand_over, self.failed.set))
        return self

    def __exit__(self, *error: object) -> None:
        self.supervisor.stop()
        assert not any(server.alive for server in Server.started)

    def _hand_over(self, address: str) -> Future[None]:
        handover: Future[None] = Future()
        if self.refusal is not None:
            handover.set_exception(self.refusal)
        else:
            self.handovers.append(address)
            handover.set_result(None)
        return handover

    def publish(self, content: str) -> None:
        file = self.repository / "config.pbtxt"
        file.unlink()
        file.write_text(content)


def until(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, 10)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, stand_in in (("TritonServer", Server), ("Watchdog", Watchdog)):
        monkeypatch.setattr(supervisor, name, stand_in)
    monkeypatch.setattr(supervisor, "Canary", lambda *parts: None)
    monkeypatch.setattr(supervisor, "Processes", lambda *parts: None)
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(Server, "slow", False)
    Server.faults.clear()
    Server.started.clear()
    Watchdog.faults.clear()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "config.pbtxt").write_text("first")
    return Stage(tmp_path / "models")


def test_a_triton_that_ends_while_starting_is_tried_again(stage: Stage) -> None:
    Server.faults.extend([EndedWhileStarting("a race"), EndedWhileStarting("a race")])
    with stage:
        assert len(Server.started) == 1


def test_a_first_start_that_always_fails_raises_the_reason(stage: Stage) -> None:
    Server.faults.extend([EndedWhileStarting("a race")] * 3)
    with pytest.raises(EndedWhileStarting, match="a race"):
        stage.supervisor.start()
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_an_error_that_no_other_attempt_can_cure_is_raised_at_once(stage: Stage) -> None:
    Server.faults.extend([EmbeddedError("no such thing"), None])
    with pytest.raises(EmbeddedError, match="no such thing"):
        stage.supervisor.start()
    assert len(Server.faults) == 1


def test_a_restart_serves_the_same_version_on_the_same_port_with_the_same_key(stage: Stage) -> None:
    stage.supervisor._watch = False
    with stage:
        stage.publish("second")
        Watchdog.faults.append("stub")
        until(lambda: len(Server.started) == 2)
        first, second = Server.started
        assert (first.port, first.secret, first.content) == (second.port, second.secret, second.content)
        assert not first.alive
        assert stage.restarts == ["stub"]
        assert stage.handovers == []


def test_a_restart_is_tried_until_it_works(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tritonflare.embedded")
    Server.faults.append(None)
    with stage:
        Server.faults.extend([EmbeddedError("not yet")] * 12)
        Watchdog.faults.append("ended")
        until(lambda: caplog.records[-1:] != [] and "is restarted" in caplog.records[-1].getMessage())
        assert len(Server.started) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "Triton ended unexpectedly; restarting it",
        *["restarting Triton failed: not yet"] * 12,
        "Triton is restarted and serves again",
    ]
    assert stage.restarts == ["ended"]


def test_a_port_that_was_taken_meanwhile_is_not_used(stage: Stage) -> None:
    with stage:
        Server.faults.append(PortInUse("taken"))
        Watchdog.faults.append("ended")
        until(lambda: len(Server.started) == 2)
        until(lambda: stage.handovers == [Server.started[1].address])
        assert Server.started[0].port != Server.started[1].port


@pytest.mark.parametrize("part", ["", "models/config.pbtxt"])
def test_a_snapshot_that_is_gone_is_taken_again(
    stage: Stage, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    """A cleaner of TMPDIR removes folders, or their oldest files."""
    with stage:
        stage.supervisor._watch = False
        (snapshot,) = Path(tempfile.gettempdir()).iterdir()
        gone = snapshot / part
        gone.unlink() if part else shutil.rmtree(gone)
        Watchdog.faults.append("ended")
        until(lambda: len(Server.started) == 2)
        until(lambda: stage.handovers == [Server.started[1].address])
        assert Server.started[1].content == "first"
        assert caplog.text.count("the served version was removed from TMPDIR") == 1
        Watchdog.faults.append("ended")  # the one that was taken again is served from now on
        until(lambda: len(Server.started) == 3)
        assert caplog.text.count("the served version was removed from TMPDIR") == 1
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_a_new_version_takes_over_and_the_old_one_ends(stage: Stage) -> None:
    with stage:
        stage.publish("second")
        until(lambda: len(Server.started) == 2 and not Server.started[0].alive)
        assert Server.started[1].content == "second"
        assert stage.handovers == [Server.started[1].address]
        assert stage.restarts == []
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_a_new_version_that_fails_is_left_alone_until_another_comes(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with stage:
        Server.faults.append(EmbeddedError("damaged"))
        stage.publish("second")
        until(lambda: "the old one is still served: damaged" in caplog.text)
        time.sleep(0.1)
        assert len(Server.started) == 1
        assert Server.started[0].alive
        stage.publish("third")
        until(lambda: len(Server.started) == 2)
        assert Server.started[1].content == "third"


def test_a_gateway_that_cannot_hand_over_keeps_the_old_one(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.refusal = ConnectionError("gone")
    with stage:
        stage.publish("second")
        until(lambda: "failed the handover" in caplog.text)
        assert Server.started[0].alive
        until(lambda: not Server.started[1].alive)


def test_what_is_published_while_nothing_can_be_started_is_tried(stage: Stage) -> None:
    with stage:
        Server.faults.extend([EmbeddedError("damaged")] * 3)
        Watchdog.faults.append("ended")
        stage.publish("second")
        until(lambda: len(Server.started) == 2)
        until(lambda: bool(Server.started[1].content))


def test_a_stop_does_not_wait_for_a_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage:
        monkeypatch.setattr(Server, "slow", True)
        Watchdog.faults.append("wedged")
        until(lambda: stage.restarts == ["wedged"])
        began = time.monotonic()
    assert time.monotonic() - began < 1


def test_a_defect_of_the_supervisor_itself_is_reported(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Watchdog) -> None:
        raise RuntimeError("a defect")

    with stage:
        monkeypatch.setattr(Watchdog, "check", fail)
        assert stage.failed.wait(5)


def state_of(stage: Stage) -> SupervisorState:
    return stage.supervisor.state


def test_the_states_of_a_supervisor_follow_its_work(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tritonflare.embedded")
    assert state_of(stage) is SupervisorState.NEW
    with stage:
        assert state_of(stage) is SupervisorState.SERVING
        Watchdog.faults.append("ended")
        until(lambda: len(Server.started) == 2 and state_of(stage) is SupervisorState.SERVING)
        stage.publish("second")
        until(lambda: len(Server.started) == 3 and not Server.started[1].alive)
    assert state_of(stage) is SupervisorState.STOPPED
    changes = [message for message in caplog.messages if message.startswith("supervisor: ")]
    assert changes == [
        "supervisor: new -> starting",
        "supervisor: starting -> serving",
        "supervisor: serving -> restarting",
        "supervisor: restarting -> serving",
        "supervisor: serving -> handing over",
        "supervisor: handing over -> serving",
        "supervisor: serving -> stopping",
        "supervisor: stopping -> stopped",
    ]

"""Runs the compose file's Triton command with the wheel's tritonserver, on other paths and ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from embedded import wheel
from embedded.server import prepare_scratch
from tests.support.bundled import bundled_repository
from tests.support.deploy.compose import triton_command
from tests.support.servers import wait_until

READY_WITHIN_S = 90


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class ServingImage:
    """What the serving image would run; it can be killed, stopped and started again on the same ports."""

    grpc: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)
    repository: Path = field(default_factory=bundled_repository)

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = Path()

    def __enter__(self) -> ServingImage:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def command(self) -> list[str]:
        """The compose file's command line, with what differs on this host."""
        here: Mapping[str, str] = {
            "--model-repository": str(self._scratch / "models"),
            "--grpc-address": "127.0.0.1",
            "--grpc-port": str(self.grpc),
            "--http-port": str(self.http),
            "--metrics-address": "127.0.0.1",
            "--metrics-port": str(self.metrics),
        }
        program, *flags = triton_command()
        names = [flag.partition("=")[0] for flag in flags]
        assert set(here) <= set(names)
        values = [
            f"{name}={here[name]}" if name in here else flag for name, flag in zip(names, flags, strict=True)
        ]
        return [
            str(wheel.folder() / "bin" / program),
            *values,
            f"--backend-directory={self._scratch / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._scratch.name}",
        ]

    def start(self, *, wait: bool = True) -> None:
        """Start Triton; wait until it serves."""
        self._scratch = Path(tempfile.mkdtemp(prefix="tritonfleet_"))
        prepare_scratch(self._scratch, self.repository.resolve(), "cpu")
        # Appended, like a pipe: the health check writes into it as well.
        with (self._scratch / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=wheel.environment(), stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            assert wait_until(self.listens, READY_WITHIN_S), self.log()

    def listens(self) -> bool:
        """Whether the gRPC port is open, which Triton does when all models are loaded."""
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.grpc)) == 0

    @property
    def pid(self) -> int:
        """The running tritonserver."""
        assert self._process is not None
        return self._process.pid

    def ended(self, timeout_s: float) -> int:
        """Wait until it has ended by itself; return the exit status."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def log(self) -> str:
        """What Triton has said."""
        return (self._scratch / "log").read_text(errors="replace")

    def stop(self, timeout_s: float = 30) -> int:
        """End it in order, as `docker stop` does; return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout_s)
        self.kill()
        return status

    def kill(self) -> None:
        """End it and its python models at once, and remove what they leave."""
        process, self._process = self._process, None
        if process is None:
            return
        # Triton first: its models share the session, and their end alone would be another fault.
        process.kill()
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for region in Path("/dev/shm").glob(f"{self._scratch.name}*"):
            region.unlink()
        shutil.rmtree(self._scratch, ignore_errors=True)

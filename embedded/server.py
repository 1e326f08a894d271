"""Start, watch and stop one tritonserver process."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from embedded import gpu, host, leftovers, wheel
from embedded.canary import Canary
from embedded.device import CPU, CUDA, VARIABLE, choose_device, link_repository
from embedded.errors import EmbeddedError, EndedWhileStarting, GivenUp, PortInUse
from embedded.leftovers import Claim
from embedded.logs import LogRelay
from embedded.repository import RepositoryModel, check_repository

RESTRICTED_KEY = "tritonflare"
# All protocols: the gateway is the only client, and it has the key.
PROTOCOLS = "health,metadata,inference,shared-memory,model-config,model-repository,statistics,trace,logging"
EXIT_TIMEOUT_S = 10
READY_TIMEOUT_S = {CPU: 120.0, CUDA: 600.0}
"""For a GPU that is newer than ONNX Runtime's code, the driver first translates all of it."""
# Asks the kernel for SIGTERM when the parent ends, then becomes Triton. A program of its own and not
# Popen's preexec_fn, because no Python may run between fork and exec in a process with other threads.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_log = logging.getLogger("tritonflare.embedded")


class TritonServer:
    """A tritonserver on loopback, gRPC only, every protocol behind a random key.

    Use as a context manager, and start it from a thread that lives as long: the kernel ends Triton
    when the thread that started it ends. The next start removes what a killed supervisor leaves behind.

    Args:
        repository: the model repository.
        port: gRPC port on 127.0.0.1; 0 takes a free one.
        ready_timeout_s: how long models may take to load and answer; None for what suits the device.
        secret: the key; None makes one.
        otlp_endpoint: where Triton sends the spans of calls with a trace context; None for no tracing.
        device: where its models compute: ``cpu``, ``cuda``, or ``auto`` (see `choose_device`). On ``cpu``,
            models that were exported for a GPU compute on the CPU; the repository stays as it is.
    """

    def __init__(
        self,
        repository: Path,
        port: int = 0,
        ready_timeout_s: float | None = None,
        secret: str | None = None,
        otlp_endpoint: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.repository = repository.resolve()
        self.port = port
        self.secret = secret or secrets.token_urlsafe(32)
        self.models: list[RepositoryModel] = []
        self.tag = ""
        """After the start: prefix of the names of its shared memory and temporary files."""
        self._ready_timeout_s = ready_timeout_s
        self._otlp_endpoint = otlp_endpoint
        self.device = device
        """After the start: ``cpu`` or ``cuda``."""
        self._relay = LogRelay()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._claim: Claim | None = None

    @property
    def address(self) -> str:
        """Where it listens for gRPC, as ``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise EmbeddedError("Triton is not running.")
        return self._process.pid

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, unwanted: Callable[[], bool] = lambda: False) -> None:
        """Start Triton and wait until every model has answered a canary.

        Args:
            unwanted: polled while waiting; when it returns True, the start is abandoned.

        Raises:
            EndedWhileStarting: Triton exited by itself.
            GivenUp: ``unwanted`` returned True.
            EmbeddedError: the host, its GPU, the repository or the port cannot be used, or Triton did
                not become ready. In any case nothing is left running.
        """
        host.require()
        self.models = check_repository(self.repository)
        self.device = choose_device(self.device, self.models)
        if self.device == CUDA:
            gpu.require()
            self._relay = LogRelay(gpu=True)
        swept = leftovers.sweep()
        if swept:
            _log.info("removed %d processes, shared-memory regions and folders of a killed server", swept)
        self.port = self.port or _free_port()
        _require_free(self.port)
        self._claim = Claim("server", regions=True)
        self.tag = self._claim.tag
        try:
            try:
                prepare_scratch(self._claim.folder, self.repository, self.device)
                self._process = self._spawn(self._claim.folder)
            except OSError as error:
                raise EmbeddedError(f"Triton cannot be started: {error.strerror}.") from error
            self._wait_ready(unwanted)
        except BaseException:
            self.kill()
            raise

    def poll(self) -> int | None:
        """The exit status if Triton has ended, else None."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """Stop the process after its requests in flight, then do as `kill`."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(EXIT_TIMEOUT_S + 5)
            except subprocess.TimeoutExpired:
                _log.warning("Triton did not stop within %d s; killing it", EXIT_TIMEOUT_S + 5)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its stubs, and remove their shared memory and temporary files."""
        process = self._process
        if process is not None:
            # The server first: while it lives, a stub that ended is an INTERNAL error to callers.
            process.kill()
            process.wait()
            # The stubs are in its session: those that were still loading do not exit by themselves.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if self._reader is not None:
            self._reader.join(timeout=10)
        self._process = self._reader = None
        if self._claim is not None:
            self._claim.release()

    def command(self, scratch: Path) -> list[str]:
        """Return the command line of tritonserver."""
        return [
            str(wheel.folder() / "bin" / "tritonserver"),
            f"--model-repository={scratch / 'models'}",
            f"--backend-directory={scratch / 'backends'}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            "--strict-readiness=true",
            "--exit-on-error=true",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.port}",
            f"--grpc-restricted-protocol={PROTOCOLS}:{RESTRICTED_KEY}={self.secret}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            f"--backend-config=python,shm-region-prefix-name={self.tag}",
            *trace_switches(self._otlp_endpoint),
        ]

    def _spawn(self, scratch: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *self.command(scratch)],
            env=wheel.environment(self.device) | {VARIABLE: self.device},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Its own session: Ctrl-C reaches the gateway alone, which drains before it stops Triton.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(process,), name="triton-log", daemon=True)
        self._reader.start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._relay.feed(line)

    def _wait_ready(self, unwanted: Callable[[], bool]) -> None:
        timeout_s = self._ready_timeout_s or READY_TIMEOUT_S[self.device]
        end = time.monotonic() + timeout_s
        with Canary(self.address, RESTRICTED_KEY, self.secret) as canary:
            while not canary.answers(self.models):
                if unwanted():
                    raise GivenUp("The start of Triton was abandoned.")
                if self.poll() is not None:
                    self._raise_explained()
                    raise EndedWhileStarting(
                        f"Triton ended while starting; its last log lines:\n{self._relay.tail()}"
                    )
                if time.monotonic() > end:
                    raise EmbeddedError(
                        f"Triton was not ready after {timeout_s:g} s; "
                        f"its last log lines:\n{self._relay.tail()}"
                    )
                time.sleep(0.05)

    def _raise_explained(self) -> None:
        """Raise EmbeddedError if the log tells that the GPU cannot be used: another start would not help."""
        explained = gpu.explain_failed_start(self._relay.tail()) if self.device == CUDA else None
        if explained is not None:
            raise EmbeddedError(explained)


def trace_switches(otlp_endpoint: str | None) -> list[str]:
    """Return the options that have Triton send spans over OTLP/HTTP, for calls with a trace context only."""
    if otlp_endpoint is None:
        return []
    settings = (
        "mode=opentelemetry",
        "level=TIMESTAMPS",  # never tensors, which are texts
        "rate=0",
        f"opentelemetry,url={otlp_endpoint}",
        "opentelemetry,resource=service.name=tritonflare-triton",
    )
    return [f"--trace-config={setting}" for setting in settings]


def prepare_scratch(scratch: Path, repository: Path, device: str) -> None:
    """Link the repository, with configurations for the device, and the python backend.

    Triton starts the stub with an unquoted command line, so a space in the repository's path would
    break it; the link's path has none.

    Raises:
        EmbeddedError: the folder for temporary files has a path that Triton cannot quote.
    """
    if not re.fullmatch(r"[\w./-]+", str(scratch), re.ASCII):
        raise EmbeddedError(
            "Triton cannot work in this TMPDIR; set it to a path of letters, digits, '-' and '_'."
        )
    wheel.link_backends(scratch / "backends")
    link_repository(repository, scratch / "models", device)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortInUse(
                f"Port {port} on 127.0.0.1 is in use; choose another with --triton-port."
            ) from error

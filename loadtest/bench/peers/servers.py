"""The peers: what they are called, how they are started, and their processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from loadtest.client import LoadError, Target

PROGRAMS = Path(__file__).with_name("programs")
ENVIRONMENTS = ("fastapi", "mosec")
"""Names of environments; each has the packages of ``requirements/peers-NAME.txt``."""
_READY_WITHIN_S = 60.0
_STOPS_WITHIN_S = 10.0


@dataclass(frozen=True)
class Peer:
    """A server and how it is tuned.

    ``command`` follows the environment's ``bin``; ``{port}`` and ``{cores}`` stand for numbers. ``group`` is the
    most texts that it computes together.
    """

    name: str
    environment: str
    path: str
    command: Sequence[str]
    settings: Mapping[str, str] = field(default_factory=dict)
    group: int = 1


_MOSEC = ("python", "mosec_server.py", "--address", "127.0.0.1", "--port", "{port}", "--timeout", "60000")
PEERS = (
    Peer(
        "FastAPI, one process a core",
        "fastapi",
        "/",
        ("uvicorn", "fastapi_server:app", "--port", "{port}", "--workers", "{cores}", "--no-access-log"),
    ),
    Peer("mosec, one text a run", "mosec", "/inference", _MOSEC, {"PEER_BATCH": "1"}),
    Peer("mosec, batches of 16 by length", "mosec", "/inference", _MOSEC, {"PEER_BATCH": "16"}, group=16),
)


@dataclass(frozen=True)
class PeerModel:
    """The files that all peers serve, and the labels of their answers; ``model`` None: a constant instead."""

    model: Path | None
    tokenizer: Path
    labels: Sequence[str]
    max_tokens: int


@dataclass(frozen=True)
class RunningPeer:
    """A peer that answers: its process, and where it is asked."""

    name: str
    pid: int
    target: Target


def missing(names: Sequence[str], folder: Path) -> list[str]:
    """Those environments that are not installed in ``folder``."""
    return [name for name in names if not (folder / name / "bin" / "python").exists()]


@contextmanager
def running_peer(peer: Peer, model: PeerModel, folder: Path, log: Path) -> Iterator[RunningPeer]:
    """Start a peer on a free loopback port; its log goes to a file.

    Args:
        peer: which one.
        model: what it serves.
        folder: where the environments are.
        log: the file for its output.

    Raises:
        LoadError: it does not answer within a minute.
    """
    port = _free_port()
    cores = len(os.sched_getaffinity(0))
    binaries = folder / peer.environment / "bin"
    program, *rest = (part.format(port=port, cores=cores) for part in peer.command)
    environment = os.environ | peer.settings | {"PEER": _described(peer, model), "ORT_DISABLE_TELEMETRY": "1"}
    with (
        log.open("wb") as out,
        # A group of its own, because neither server's main process ends its workers in every case.
        subprocess.Popen(
            [str(binaries / program), *rest],
            cwd=PROGRAMS,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ) as process,
    ):
        try:
            target = Target(f"http://127.0.0.1:{port}", "none", peer.path)
            _wait_until_it_answers(process, port, peer, log)
            yield RunningPeer(peer.name, process.pid, target)
        finally:
            _stop(process)


def _described(peer: Peer, model: PeerModel) -> str:
    return json.dumps(
        {
            "model": None if model.model is None else str(model.model.resolve()),
            "tokenizer": str(model.tokenizer.resolve()),
            "labels": list(model.labels),
            "max_tokens": model.max_tokens,
            "group": peer.group,
        }
    )


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, peer: Peer, log: Path) -> None:
    end = time.monotonic() + _READY_WITHIN_S
    while process.poll() is None and time.monotonic() < end:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", peer.path, '{"text": "ready?"}', {"Content-Type": "application/json"})
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    words = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise LoadError(f"{peer.name} did not start; its last words:\n{words}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            continue

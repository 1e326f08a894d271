"""The peers: what they are called, how they are tuned, and how they are started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loadtest.bench.peers.process_group import process_group
from loadtest.client import LoadError, Target

PROGRAMS = Path(__file__).with_name("programs")
INSTALLED = ".installed"
"""The file that says that an environment is complete."""
_REPORTED_PACKAGES = ("fastapi", "uvicorn", "mosec", "onnxruntime", "tokenizers")
_READY_WITHIN_S = 60.0
_INHERITED = ("GLIBC_TUNABLES", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ")
"""What a peer gets of our environment: its memory is allocated as ours is. The rest, above all
``PYTHONPATH``, is no concern of a peer."""


@dataclass(frozen=True)
class Peer:
    """A server and how it is tuned.

    ``environment`` is the name that ``--peers`` knows, and of the folder where its packages are.
    ``command`` is a program of that environment; ``{port}`` and ``{cores}`` in it stand for numbers.
    ``settings`` are what the program reads of ``PEER``; see programs/. ``pairs_apart`` says that its users
    would send each context of a query in a request of its own.
    """

    name: str
    environment: str
    path: str
    command: Sequence[str]
    settings: Mapping[str, int] = field(default_factory=dict)
    pairs_apart: bool = False


_FASTAPI = ("uvicorn", "fastapi_server:app", "--port", "{port}", "--workers", "{cores}", "--no-access-log")
_MOSEC = ("python", "mosec_server.py", "--address", "127.0.0.1", "--port", "{port}", "--timeout", "600000")
# The timeout, in ms, is no part of what is compared. mosec takes a worker's wait of 0 for unset, and uses
# that of its option --wait, which is 10 ms unless it is given as 0.
_BATCHES = {"batch": 32, "wait_ms": 0, "group": 16, "padding": 4}
PEERS = (
    Peer("FastAPI", "fastapi", "/", _FASTAPI, {"threads": 1}),
    Peer("mosec, one text a run", "mosec", "/inference", _MOSEC),
    Peer("mosec, groups of like length", "mosec", "/inference", (*_MOSEC, "--wait", "0"), _BATCHES),
)
_FASTAPI_ALONE = tuple(part.replace("{cores}", "1") for part in _FASTAPI)
_PAIRS = {"group": 8, "padding": 4}
RERANKING_PEERS = (
    Peer("FastAPI", "fastapi", "/", _FASTAPI_ALONE, _PAIRS | {"threads": 8, "all_cores": 1}),
    Peer("mosec, contexts together", "mosec", "/inference", _MOSEC, _PAIRS),
    Peer(
        "mosec, a request a context",
        "mosec",
        "/inference",
        (*_MOSEC, "--wait", "0"),
        _PAIRS | {"batch": 8, "wait_ms": 0},
        pairs_apart=True,
    ),
)
"""The same with a reranker."""
NAMES = tuple(dict.fromkeys(peer.environment for peer in PEERS))
"""What ``--peers`` knows; each has the packages of ``requirements/peers-NAME.txt``."""


@dataclass(frozen=True)
class PeerModel:
    """The files that all peers serve, and the labels of their answers.

    ``model`` None stands for the null model: texts are tokenized, and every logit is 0.
    """

    model: Path | None
    tokenizer: Path
    labels: Sequence[str]
    max_tokens: int

    @property
    def first_request(self) -> dict[str, Any]:
        """A body that it can answer: a model with one label is a reranker."""
        return {"text": "ready?"} if len(self.labels) > 1 else {"query": "ready?", "contexts": ["Yes."]}


@dataclass(frozen=True)
class RunningPeer:
    """A peer that answers: its first process, where it is asked, and whether pair by pair."""

    name: str
    pid: int
    target: Target
    pairs_apart: bool = False


def missing(names: Sequence[str], folder: Path) -> list[str]:
    """Those of the names whose environment in ``folder`` is not, or not wholly, installed."""
    return [name for name in names if not (folder / name / INSTALLED).is_file()]


def package_versions(name: str, folder: Path) -> dict[str, str]:
    """The versions of an environment's packages that matter for speed."""
    (packages,) = (folder / name / "lib").glob("python3*/site-packages")
    found = {each.name.lower(): each.version for each in distributions(path=[str(packages)])}
    return {package: found[package] for package in _REPORTED_PACKAGES if package in found}


@contextmanager
def running_peer(peer: Peer, model: PeerModel, folder: Path, work: Path) -> Iterator[RunningPeer]:
    """Start a peer on a free loopback port; all of its processes end with the block.

    Args:
        peer: which one.
        model: what it serves.
        folder: where the environments are.
        work: an empty folder for its log; made here.

    Raises:
        LoadError: it cannot be started, or does not answer within a minute.
    """
    work.mkdir(parents=True)
    log = work / "log"
    port = _free_port()
    program, *rest = (part.format(port=port, cores=len(os.sched_getaffinity(0))) for part in peer.command)
    command = [str((folder / peer.environment / "bin" / program).absolute()), *rest]
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
        "PEER": _described(peer, model),
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # A process a core: threads for the texts of a batch would take another process's core.
        "TOKENIZERS_PARALLELISM": "false",
    }
    with ExitStack() as programs:
        try:
            # Not in ``work``: mosec makes sockets there, whose paths must stay below 108 bytes.
            temporary = programs.enter_context(TemporaryDirectory(prefix="peer_"))
            group = process_group(command, PROGRAMS, environment | {"TMPDIR": temporary}, log)
            process = programs.enter_context(group)
            target = Target(f"http://127.0.0.1:{port}", "none", peer.path)
            _wait_until_it_answers(process, target, model.first_request, peer, log)
        except OSError as error:
            raise LoadError(f"{peer.name} could not be started: {error.strerror}") from error
        yield RunningPeer(peer.name, process.pid, target, peer.pairs_apart)


def _described(peer: Peer, model: PeerModel) -> str:
    """The variable ``PEER``; see programs/onnx_model.py."""
    return json.dumps(
        {
            "model": None if model.model is None else str(model.model.resolve()),
            "tokenizer": str(model.tokenizer.resolve()),
            "labels": list(model.labels),
            "max_tokens": model.max_tokens,
            **peer.settings,
        }
    )


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], target: Target, request: Mapping[str, Any], peer: Peer, log: Path
) -> None:
    end = time.monotonic() + _READY_WITHIN_S
    while process.poll() is None and time.monotonic() < end:
        connection = HTTPConnection(target.url.removeprefix("http://"), timeout=5)
        try:
            connection.request("POST", peer.path, json.dumps(request), {"Content-Type": "application/json"})
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    words = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise LoadError(f"{peer.name} did not start; its last words:\n{words}")

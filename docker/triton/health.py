#!/usr/bin/env python3
"""Health check of the serving image: ready, and every ensemble answers a text, or a pair of texts.

Triton may call itself ready while a model's process is dead or stuck, so an inference has to be answered too.
Uses Triton's HTTP endpoint on loopback; the standard library only. Exit status 0 or 1.

An engine that does nothing about an unhealthy container, as Docker, needs ``--end-after``: then the server is
ended when that many looks in a row have failed, and what restarts ended containers brings it back. Only a
process that listens, or did when it was last seen, is ended; Triton listens when its models are loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TEXT = "Is anyone there?"
_HERE = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Past the proxies of the environment, which Docker may set in every container."""
_LISTEN = "0A"
"""The state of a socket in /proc/net/tcp."""


class Unhealthy(Exception):
    """Triton answered, but not as a server that can serve."""


@dataclass
class Memory:
    """What looks at one process of Triton leave to the next."""

    pid: int = 0
    """0 while no process is known."""
    started: str = ""
    """In clock ticks after the machine; a process number may come again."""
    inputs: dict[str, list[str]] = field(default_factory=dict)
    """What each ensemble, with its version, reads, and nothing for other models; a process keeps them."""
    first_s: float = field(default_factory=time.monotonic)
    """When it was first seen to listen, by the monotonic clock."""
    answered: bool = False
    """It was healthy once."""
    failures: int = 0
    """Looks in a row that failed, those of the start left out."""
    told_s: float | None = None
    """When the server was told to end."""


def check(base: str, timeout_s: float, inputs: dict[str, list[str]] | None = None) -> int:
    """Ask everything once; return how many ensembles answered.

    Args:
        base: such as ``http://127.0.0.1:8000``.
        timeout_s: how long everything together may take; an answer that trickles in may take a little longer.
        inputs: what is known of the models already; what is found out is added.

    Raises:
        Unhealthy: no ensemble is ready, or one gave no outputs.
        OSError: Triton is away, not ready, too slow, or refused.
        ValueError: an answer was no JSON.
    """
    deadline = time.monotonic() + timeout_s
    known = {} if inputs is None else inputs
    _call(f"{base}/v2/health/ready", None, deadline)
    index = _call(f"{base}/v2/repository/index", {"ready": True}, deadline) or []
    asked = set()
    for model in index:
        name, key = model["name"], f"{model['name']}:{model.get('version')}"
        if key not in known:
            config = _call(f"{base}/v2/models/{name}/config", None, deadline)
            is_ensemble = config.get("platform") == "ensemble"
            known[key] = [tensor["name"] for tensor in config["input"]] if is_ensemble else []
        if not known[key] or name in asked:
            continue
        asked.add(name)
        texts = [
            {"name": tensor, "shape": [1, 1], "datatype": "BYTES", "data": [TEXT]} for tensor in known[key]
        ]
        answer = _call(f"{base}/v2/models/{name}/infer", {"inputs": texts}, deadline)
        if not answer.get("outputs"):
            raise Unhealthy(f"{name} gave no outputs")
    if not asked:
        raise Unhealthy("no ensemble is ready")
    return len(asked)


def _call(url: str, body: Any, deadline: float) -> Any:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("no time is left")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 (loopback)
    with _HERE.open(request, timeout=left_s) as response:
        return json.loads(response.read() or b"null")


def recall(file: Path | None, port: int) -> Memory:
    """What the file says of the process that listens on ``port``, or did; nothing of any other."""
    kept = Memory()
    if file:
        with suppress(OSError, ValueError, TypeError):
            kept = Memory(**json.loads(file.read_text(encoding="utf-8")))
    # While it ends it may listen no more.
    pid = _listener(port) or kept.pid
    started = _started(pid)
    if not started:
        return Memory()
    return kept if (kept.pid, kept.started) == (pid, started) else Memory(pid, started)


def _listener(port: int) -> int | None:
    """The process of ours that listens on the port at an IPv4 address."""
    sockets = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
            sockets.add(f"socket:[{inode}]")
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    return next((pid for pid in pids if sockets & _open_files(pid)), None) if sockets else None


def _open_files(pid: int) -> set[str]:
    found = set()
    # Processes of others, and what is gone meanwhile.
    with suppress(OSError):
        for link in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(link.path))
    return found


def _started(pid: int) -> str:
    """When the process began; empty when it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]


def end(memory: Memory, kill_after_s: float) -> str:
    """Tell the server to end, or if it was told ``kill_after_s`` ago, kill it; say what was done.

    Raises:
        OSError: the process is gone or somebody else's.
    """
    now = time.monotonic()
    if memory.told_s is None:
        number, said = signal.SIGTERM, f"; told to end after {memory.failures} failed looks"
    elif now - memory.told_s >= kill_after_s:
        number, said = signal.SIGKILL, f"; killed {now - memory.told_s:.0f} s after it was told to end"
    else:
        return ""
    # Into the server's own log: what this program writes is kept for a few looks only. Before it has gone.
    with suppress(OSError), Path(f"/proc/{memory.pid}/fd/2").open("a", encoding="utf-8") as log:
        log.write(f"health check{said}\n")
    os.kill(memory.pid, number)
    if memory.told_s is None:
        memory.told_s = now
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; say in one line what is wrong and what was done about it."""
    options = _parser().parse_args(arguments)
    memory = recall(options.state, urlsplit(options.url).port or 80)
    try:
        answered = check(options.url, options.timeout, memory.inputs)
    except (OSError, ValueError, LookupError, AttributeError, Unhealthy) as error:
        status, said = 1, f"unhealthy: {error}"
        started = memory.answered or time.monotonic() - memory.first_s >= options.start_period
        memory.failures += started
        if 0 < options.end_after <= memory.failures and memory.pid:
            with suppress(OSError):
                said += end(memory, options.kill_after)
    else:
        status, said = 0, f"healthy: {answered} ensembles answered"
        memory.answered, memory.failures, memory.told_s = True, 0, None
    if options.state and memory.pid:
        try:
            options.state.write_text(json.dumps(asdict(memory)), encoding="utf-8")
        except OSError as error:
            said += f"; not remembered: {error.strerror}"
    sys.stdout.write(f"{said}\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="Triton's HTTP endpoint")
    parser.add_argument("--timeout", type=float, default=45.0, help="seconds for all answers together")
    parser.add_argument("--state", type=Path, help="file in which one look leaves to the next what it knows")
    parser.add_argument(
        "--end-after",
        type=int,
        default=0,
        metavar="LOOKS",
        help="end the server when so many in a row have failed; 0 never does. Needs --state",
    )
    parser.add_argument(
        "--start-period",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="do not count failures of a server that listens for less than this and was never healthy",
    )
    parser.add_argument(
        "--kill-after",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="kill the server if it has not ended by then, which a dead model keeps it from",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

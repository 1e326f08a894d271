"""What happens to requests when the encoder's process is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
import uvloop

from export.evaluation.gate import DEFAULT_LIMITS
from loadtest.bench.processes import ProcessTree
from loadtest.checks import Scores, difference, scores_of
from loadtest.client import ClientConnection, Target
from loadtest.closed_loop import classify_sequentially, starts
from tools.gpu_check.answers import mixed_texts
from tools.gpu_check.job import CheckFailed, Job
from tools.gpu_check.models import served_models
from tools.gpu_check.stack import DEADLINE_S, running_program

_PRECISION = "fp16"
_CONNECTIONS = 8
_BEFORE_S = 1.0
_ENDS_S = 5.0
"""For the servers to stop."""
_SETTLED_S = 0.1
"""Requests that leave so long after the fault do not meet the process that was killed."""
_REFUSALS = {408, 429, 503}


@dataclass
class Book:
    """What became of the requests: status, when it left, when it was answered, and whether it was right."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    right_s: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0
    """Connections that the gateway closed without an answer."""

    def back_s(self, fault_s: float) -> float | None:
        """Seconds from the fault to the first right answer to a request that left after it."""
        ends = [end for sent, end in self.right_s if sent >= fault_s + _SETTLED_S]
        return min(ends) - fault_s if ends else None


async def keep_asking(
    target: Target,
    texts: Sequence[str],
    alone: Sequence[Scores],
    limit: float,
    book: Book,
    ended: asyncio.Event,
) -> None:
    """Ask on several connections until ``ended``, whatever comes; every 200 is compared with ``alone``."""
    requests = [target.request(text) for text in texts]

    async def follow(walk: Iterator[int]) -> None:
        connection: ClientConnection | None = None
        while not ended.is_set():
            place, sent = next(walk), time.monotonic()
            try:
                if connection is None or not connection.reusable:
                    connection = await ClientConnection.open(target)
                status, body = await connection.exchange(requests[place])
            except OSError:
                book.lost += 1
                connection = None
                continue
            book.statuses[status] += 1
            if status != 200:
                await asyncio.sleep(0.02)
            elif difference(scores_of(body), alone[place]) <= limit:
                book.right_s.append((sent, time.monotonic()))
            else:
                book.wrong += 1
        if connection is not None:
            connection.close()

    await asyncio.gather(*map(follow, starts(len(texts), _CONNECTIONS)))


def check(job: Job) -> str:
    """Kill the encoder's process under load: no wrong answer, and the service comes back by itself."""
    model = served_models(job.settings)[_PRECISION]
    texts = mixed_texts(model, 8 if job.settings.short else 64)
    began = time.monotonic()
    with running_program(job, _PRECISION) as program:
        start_s = time.monotonic() - began
        victim = find_stub(program.pid, model.published.encoder)
        book, back_s = uvloop.run(_kill_under_load(job, program.target, texts, victim))
    job.figures(
        start_s=round(start_s, 2),
        back_s=None if back_s is None else round(back_s, 2),
        statuses={str(status): count for status, count in sorted(book.statuses.items())},
        wrong=book.wrong,
        lost_connections=book.lost,
    )
    if book.wrong:
        raise CheckFailed(f"{book.wrong} answers were wrong.")
    if back_s is None:
        click.echo((job.settings.work / "serve.log").read_text(errors="replace")[-4000:], err=True)
        raise CheckFailed("The service did not come back.")
    if book.lost:
        raise CheckFailed(f"{book.lost} requests were closed without an answer.")
    if strange := set(book.statuses) - _REFUSALS - {200}:
        raise CheckFailed(f"Requests were answered {', '.join(map(str, sorted(strange)))}.")
    refused = sum(count for status, count in book.statuses.items() if status != 200)
    return f"Right answers again after {back_s:.1f} s; {refused} requests refused, none answered wrongly."


async def _kill_under_load(
    job: Job, target: Target, texts: Sequence[str], victim: int
) -> tuple[Book, float | None]:
    alone = await classify_sequentially(target, texts)
    book, ended = Book(), asyncio.Event()
    limit = DEFAULT_LIMITS[_PRECISION].neighbours
    load = asyncio.create_task(keep_asking(target, texts, alone, limit, book, ended))
    try:
        await asyncio.sleep(_BEFORE_S)
        fault_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        # The last requests may take as long as their deadline.
        while book.back_s(fault_s) is None and job.left_s > DEADLINE_S + _ENDS_S:
            await asyncio.sleep(0.05)
        await asyncio.sleep(_BEFORE_S)
    finally:
        ended.set()
        await load
    return book, book.back_s(fault_s)


def find_stub(ancestor: int, model: str, proc: Path = Path("/proc")) -> int:
    """The process of Triton that runs a python model, below the process ``ancestor``.

    Raises:
        CheckFailed: there is none.
    """
    for pid in ProcessTree(ancestor, proc=proc).pids():
        with suppress(OSError):  # it may have ended just now
            words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
            is_stub = words[0].endswith(b"triton_python_backend_stub") and len(words) > 1
            if is_stub and f"/{model}/".encode() in words[1]:
                return pid
    raise CheckFailed("The encoder's process was not found.")

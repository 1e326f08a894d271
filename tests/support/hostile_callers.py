"""Callers that nobody wants, in a process of their own.

``python -m tests.support.hostile_callers KIND PORT COUNT TOKEN``, until it is killed:

* ``slow``: COUNT connections that send one byte a second, half of them in the head, half in the body
* ``gone``: COUNT a second that connect and hang up: in the head, in the body, or waiting for the answer
* ``idle``: COUNT connections on which nothing is sent
* ``dots``, ``word``, ``batch``: COUNT that send a megabyte again and again: dots, one word, or long texts

It prints a line when all of them are there. Whom the gateway turns away comes again.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvloop

from loadtest.client import Target
from tests.support.load import Connections

SLOW, GONE, IDLE = "slow", "gone", "idle"
LONG: dict[str, Any] = {
    "dots": {"text": "." * 1_000_000},
    "word": {"text": "a" * 1_000_000},
    "batch": {"requests": [{"text": "so it was . " * 850}] * 95},
}
_TEXT = "So much to say, so little time to say it in, and nobody who listens."
_AT_ONCE = 200


async def _slow(target: Target, port: int, number: int, there: asyncio.Semaphore) -> None:
    request = target.request(_TEXT)
    body = request.index(b"\r\n\r\n") + 4
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            there.release()
            sent = body + 1 if number % 2 else 1
            writer.write(request[:sent])
            while not writer.is_closing():
                await asyncio.sleep(1)
                writer.write(request[sent : sent + 1])
                sent = min(sent + 1, len(request) - 2)
        await asyncio.sleep(0.1)


async def _hang_up(target: Target, port: int) -> None:
    request = target.request(_TEXT)
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[: random.choice((20, len(request) - 9, len(request)))])
        await asyncio.sleep(random.random() * 0.01)
        writer.transport.abort()


async def _idle(port: int) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.read()
            writer.close()
        await asyncio.sleep(0.1)


async def _long(target: Target, kind: str) -> None:
    connections = Connections(target)
    request = target.request_of(LONG[kind])
    while True:
        try:
            status, _ = await connections.exchange(request)
        except OSError:
            status = 0
        if status != 200:
            await asyncio.sleep(0.25)


async def _run(kind: str, port: int, count: int, token: str) -> None:
    from tests.faults.conftest import PATH

    target = Target(f"http://127.0.0.1:{port}", token, PATH)
    tasks: set[asyncio.Task[None]] = set()
    if kind == GONE:
        print("there", flush=True)
        began = time.monotonic()
        for number in range(10**9):
            task = asyncio.create_task(_hang_up(target, port))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(max(0, began + number / count - time.monotonic()))
    there = asyncio.Semaphore(0)
    for number in range(count):
        if kind == SLOW:
            tasks.add(asyncio.create_task(_slow(target, port, number, there)))
            await there.acquire()
        elif kind in LONG:
            tasks.add(asyncio.create_task(_long(target, kind)))
        else:
            tasks.add(asyncio.create_task(_idle(port)))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0.05)
    print("there", flush=True)
    await asyncio.gather(*tasks)


@contextmanager
def unwanted(kind: str, port: int, count: int, token: str) -> Iterator[None]:
    """Have them there until the end of the block."""
    command = [sys.executable, "-m", "tests.support.hostile_callers", kind, str(port), str(count), token]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))

"""The hostile corpus against the real gateway process before the real Triton, over plain sockets."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest

from embedded.server import TritonServer

from .harness import UUID
from .hostile import bodies, calls, heads, paths, wire
from .hostile.case import FINE, NOTHING, Expected, Hostile, request
from .live import gateway_before_real

CASES = [*bodies.CASES, *calls.CASES, *heads.CASES, *paths.CASES, *wire.CASES]
PROMPT_S = 0.1
GOOD = request()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, real_triton: TritonServer) -> Iterator[int]:
    settings = {
        "GATEWAY_REQUEST_TIMEOUT_S": str(wire.DEADLINE_S),
        "GATEWAY_KEEP_ALIVE_TIMEOUT_S": str(wire.DEADLINE_S),
    }
    log = tmp_path_factory.mktemp("hostile") / "log"
    with gateway_before_real(log, real_triton, **settings) as started:
        yield started


class Connection:
    """One connection; reads answers byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, case: Hostile) -> float:
        """Send all of it; return when the last piece began to leave, on the clock of ``perf_counter``."""
        for piece in case.sent[:-1]:
            await self._write(piece)
            await asyncio.sleep(case.pause_s)
        last = time.perf_counter()
        await self._write(case.sent[-1])
        return last

    async def _write(self, piece: bytes) -> None:
        self._writer.write(piece)
        with suppress(ConnectionError):  # refused before all of it was sent
            await asyncio.wait_for(self._writer.drain(), 5)

    async def answer(self, *, head_only: bool = False) -> tuple[Expected, bool]:
        """Return what came, and whether the connection may be used again."""
        while (head := await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "):
            pass
        status = int(head.split()[1])
        found = re.search(rb"(?im)^content-length: (\d+)\r$", head)
        assert found, head
        body = b"" if head_only else await self._reader.readexactly(int(found[1]))
        return (status, code_of(status, head, body, head_only)), b"\r\nconnection: close\r\n" not in head

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


def code_of(status: int, head: bytes, body: bytes, head_only: bool) -> int:
    """Check the envelope; return the code of the error, 0 for none, that of 7001 for a HEAD."""
    if head_only:
        return 7001
    if status == 200:
        return 0
    envelope = json.loads(body)
    (error,) = envelope["errors"]
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert (envelope["success"], envelope["messages"]) == (False, [])
    if envelope["result"] is not None:
        assert envelope["result"] == {}
        (request_id,) = UUID.findall(error["message"])
        assert f"\r\ncf-ai-req-id: {request_id}\r\n".encode() in head
    return int(error["code"])


async def connect(port: int) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", port))


async def exchange(port: int, case: Hostile) -> tuple[Expected, float, Connection | None]:
    """Send ``case``; return the answer, the seconds after the last piece, and the connection if it lives."""
    connection = await connect(port)
    started = await connection.send(case)
    if case.leaves:
        await connection.close()
        return NOTHING, 0.0, None
    head_only = case.sent[0].startswith(b"HEAD ")
    answer, reusable = await asyncio.wait_for(connection.answer(head_only=head_only), 10)
    seconds = time.perf_counter() - started - case.after_s
    if reusable:
        return answer, seconds, connection
    await connection.close()
    return answer, seconds, None


async def is_served(port: int, connection: Connection | None, case: Hostile) -> bool:
    """Send a good request, on the connection of the hostile one if it lives, else on a new one."""
    pipelined = case.name.startswith("pipeline: ")
    if connection is None or pipelined or case.unfinished or case.after_s:
        if connection is not None:
            await connection.close()
        connection = await connect(port)
    try:
        await connection.send(Hostile("good", (GOOD,), FINE))
        answer, _ = await asyncio.wait_for(connection.answer(), 5)
        return answer == FINE
    finally:
        await connection.close()


def test_the_corpus_is_large_and_every_name_is_its_own() -> None:
    assert len(CASES) >= 300
    assert sum(case.expected not in {FINE, NOTHING} for case in CASES) >= 300
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_it_is_answered_promptly_as_the_contract_says_and_harms_nobody(
    port: int, case: Hostile
) -> None:
    """The answer comes within 100 ms, at the second try where the first took longer.

    A shared machine stalls now and then; what is slow by itself is slow twice.
    """
    answer, seconds, connection = await exchange(port, case)
    assert answer == case.expected
    assert await is_served(port, connection, case)
    if seconds > PROMPT_S:
        answer, seconds, connection = await exchange(port, case)
        if connection is not None:
            await connection.close()
    assert (answer, seconds <= PROMPT_S) == (case.expected, True), seconds

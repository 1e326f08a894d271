"""How much of the model's own speed arrives at an HTTP client, measured in one run.

Alternating rounds on real sentences (their length mix kept): the served ``model.onnx`` inside
this process on all cores, one by one and in length-sorted groups, tokenization included (the
*ceiling* is the better of the two), then the running stack over HTTP at several numbers of
connections. Everything shares the machine's cores, the load generator included.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

GROUP = 8


@dataclass(frozen=True)
class Target:
    """Where the running server answers."""

    host: str
    port: int
    path: str
    token: str


@dataclass(frozen=True)
class Round:
    """One measurement: requests a second and latencies in milliseconds."""

    rate: float
    p50_ms: float = float("nan")
    p99_ms: float = float("nan")


@dataclass(frozen=True)
class Row:
    """Medians over the rounds of one way of asking."""

    name: str
    rate: float
    p50_ms: float
    p99_ms: float
    rounds: tuple[float, ...]


def read_sentences(path: Path, limit: int = 512) -> list[str]:
    """Evenly spread sentences of a TSV with a column ``text``."""
    with path.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file, delimiter="\t")]
    return texts[:: max(1, len(texts) // limit)][:limit]


class InProcess:
    """The served model without any server: one single-threaded session per core."""

    def __init__(self, model: Path, tokenizer: Path, texts: Sequence[str]) -> None:
        self._texts = texts
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(512)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        cores = len(os.sched_getaffinity(0))
        self._sessions = [ort.InferenceSession(str(model), options) for _ in range(cores)]

    def one_by_one(self, seconds: float) -> Round:
        """Every text in a run of its own."""
        return self._measure(seconds, 1)

    def sorted_groups(self, seconds: float) -> Round:
        """Texts sorted by length, GROUP at a time."""
        return self._measure(seconds, GROUP)

    def _measure(self, seconds: float, group: int) -> Round:
        begin = time.perf_counter()
        end = begin + seconds
        with ThreadPoolExecutor(len(self._sessions)) as pool:
            done = sum(pool.map(lambda session: self._work(session, group, end), self._sessions))
        return Round(done / (time.perf_counter() - begin))

    def _work(self, session: ort.InferenceSession, group: int, end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            # 64 texts are what a server would have at hand to sort, not the whole set.
            for start in range(0, len(self._texts), 64):
                part = self._tokenizer.encode_batch_fast(list(self._texts[start : start + 64]))
                rows = sorted((encoding.ids for encoding in part), key=len)
                for first in range(0, len(rows), group):
                    _run(session, rows[first : first + group])
                    done += len(rows[first : first + group])
                if time.perf_counter() >= end:
                    break
        return done


def _run(session: ort.InferenceSession, rows: Sequence[Sequence[int]]) -> None:
    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
        mask[line, : len(row)] = 1
    session.run(None, {"input_ids": ids, "attention_mask": mask})


def over_http(target: Target, texts: Sequence[str], connections: int, seconds: float) -> Round:
    """Closed loop: each connection asks again as soon as it has its answer."""
    return asyncio.run(_load(target, [_request(target, text) for text in texts], connections, seconds))


def _request(target: Target, text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
        f"Authorization: Bearer {target.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _load(target: Target, requests: Sequence[bytes], connections: int, seconds: float) -> Round:
    latencies: list[float] = []
    begin = time.perf_counter()
    end = begin + seconds
    await asyncio.gather(
        *(_connection(target, requests, start, connections, end, latencies) for start in range(connections))
    )
    latencies.sort()
    p50, p99 = (1000 * latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
    return Round(len(latencies) / (time.perf_counter() - begin), p50, p99)


async def _connection(
    target: Target, requests: Sequence[bytes], start: int, step: int, end: float, latencies: list[float]
) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        turn = start
        while (now := time.perf_counter()) < end:
            writer.write(requests[turn % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {head.splitlines()[0].decode('latin-1')}")
            length = next(
                int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            )
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - now)
            turn += step
    finally:
        writer.close()
        await writer.wait_closed()


def run_bench(
    local: InProcess,
    target: Target,
    texts: Sequence[str],
    connections: Sequence[int],
    *,
    rounds: int,
    seconds: float,
    step: Callable[[str], None],
) -> list[Row]:
    """All ways in turn, ``rounds`` times over, so that a slow minute hits them alike."""
    ways: dict[str, Callable[[], Round]] = {
        "in-process, one by one": lambda: local.one_by_one(seconds),
        "in-process, sorted": lambda: local.sorted_groups(seconds),
    }
    for count in connections:
        ways[f"HTTP, {count} connections"] = lambda count=count: over_http(target, texts, count, seconds)  # type: ignore[misc]
    found: dict[str, list[Round]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, measure in ways.items():
            step(f"round {turn + 1} of {rounds}: {name}")
            found[name].append(measure())
    return [_row(name, results) for name, results in found.items()]


def _row(name: str, results: Sequence[Round]) -> Row:
    return Row(
        name=name,
        rate=statistics.median(r.rate for r in results),
        p50_ms=statistics.median(r.p50_ms for r in results),
        p99_ms=statistics.median(r.p99_ms for r in results),
        rounds=tuple(round(r.rate, 1) for r in results),
    )


def as_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows with their share of the ceiling, the better of the two in-process ways."""
    ceiling = max(row.rate for row in rows if row.name.startswith("in-process"))
    return [vars(row) | {"of_ceiling": row.rate / ceiling} for row in rows]

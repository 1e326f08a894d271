"""The same texts through the gateway over HTTP and gRPC, and from Triton itself, at equal concurrency."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from loadtest.bench.figures import Sample
from loadtest.bench.grpc_client import GrpcTarget, over_grpc
from loadtest.bench.meter import Meter
from loadtest.bench.rounds import Way
from loadtest.client import Target
from loadtest.closed_loop import over_http
from loadtest.inference import OUTPUTS

SECTION = "protocols"
CALL_TEXTS = (1, 32)
NAMES = ("HTTP", "gRPC", "Triton directly")
_HTTP, _GRPC, _TRITON = range(len(NAMES))
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Servers:
    """One gateway with both of its ports, the Triton behind it, and how their costs are read."""

    http: Target
    grpc: GrpcTarget
    triton: GrpcTarget
    meter: Meter

    @property
    def ensemble(self) -> str:
        """The model's name on either server."""
        return self.meter.model.ensemble


def protocol_ways(
    servers: Servers, texts: Sequence[str], seconds: float, calls_at_once: Sequence[int]
) -> Iterator[Way]:
    """Calls of 1 and of 32 texts; the three ways of one concurrency follow each other.

    All are sent by our own asyncio clients, because no other generator speaks both protocols.
    """
    for each in CALL_TEXTS:
        for calls in calls_at_once:
            for way, ask in enumerate(_asks(servers, texts, seconds, each, calls)):
                name = f"{NAMES[way]}, {calls} at once, {each} {'text' if each == 1 else 'texts'} each"
                facts = {"calls": calls, "call_texts": each, "way": way}
                yield Way(SECTION, name, partial(servers.meter.around, ask), facts)


def _asks(
    servers: Servers, texts: Sequence[str], seconds: float, each: int, calls: int
) -> Iterator[Callable[[], Sample]]:
    yield lambda: over_http(servers.http, texts, calls, seconds, each)
    yield lambda: over_grpc(servers.grpc, servers.ensemble, texts, each, calls, seconds, OUTPUTS)
    yield lambda: over_grpc(servers.triton, servers.ensemble, texts, each, calls, seconds)


HEADS = (
    "calls at once × texts",
    "HTTP texts/s",
    "gRPC texts/s",
    "Triton texts/s",
    "gRPC / HTTP",
    "gRPC / Triton",
    "HTTP p50 ms",
    "gRPC p50 ms",
    "HTTP CPU ms/text",
    "gRPC CPU ms/text",
    "CPU gRPC / HTTP",
)


def comparison(rows: Sequence[Row]) -> Iterator[list[str]]:
    """A line for each concurrency; ratios are medians over rounds, CPU is the gateway's."""
    found = {(row["facts"]["call_texts"], row["facts"]["calls"], row["facts"]["way"]): row for row in rows}
    for each, calls in dict.fromkeys(key[:2] for key in found):
        http, grpc, triton = (found.get((each, calls, way)) for way in (_HTTP, _GRPC, _TRITON))
        if http is None or grpc is None or triton is None:
            continue
        yield [
            f"{calls} × {each}",
            *(_cell(row, "rate", ".0f") for row in (http, grpc, triton)),
            _ratio(grpc, http, "rate"),
            _ratio(grpc, triton, "rate"),
            *(_cell(row, "p50_ms", ".1f") for row in (http, grpc)),
            # Seconds per 1,000 texts are milliseconds per text.
            *(_cell(row, "gateway_cpu_s", ".3f") for row in (http, grpc)),
            _ratio(grpc, http, "gateway_cpu_s"),
        ]


def _cell(row: Row, key: str, form: str) -> str:
    return format(row["medians"][key], form) if key in row["medians"] else "–"


def _ratio(over: Row, under: Row, key: str) -> str:
    """Round by round, so that what slowed a whole round down counts for neither."""
    pairs = zip(over["rounds"], under["rounds"], strict=True)
    ratios = [one[key] / other[key] for one, other in pairs if key in one and other.get(key)]
    return f"{statistics.median(ratios):.2f}" if ratios else "–"

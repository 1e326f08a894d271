"""The ways that each section of the bench compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from loadtest.bench.figures import Sample
from loadtest.bench.gpu import Gpus
from loadtest.bench.grpc_client import GrpcTarget, over_grpc
from loadtest.bench.in_process import InProcess
from loadtest.bench.invariance import Invariance
from loadtest.bench.meter import Meter
from loadtest.bench.rounds import Way
from loadtest.bench.sentences import ExactTexts
from loadtest.client import Target
from loadtest.closed_loop import Load, over_http

SECTIONS = ("ceiling", "grpc", "http", "protocols", "null", "precision", "length")
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
GRPC_CALLS = ((1, 1), (1, 8), (1, 32), (16, 4), (32, 2))
"""Texts a call, and calls at once."""
NULL_AT_ONCE = 128
LENGTH_CONNECTIONS = (1, 32)
_TEXTS_OF_A_LENGTH = 16
_COMPARED = 0.2
"""Share of a measurement's time that is spent on comparing answers before it; it warms up, too."""


@dataclass(frozen=True)
class Served:
    """A gateway before Triton: where its two models answer, and how their costs are read."""

    workers: int
    real: Target
    null: Target
    meter: Meter
    null_meter: Meter


@dataclass(frozen=True)
class Setting:
    """What all sections share; ``gpus`` as in `run.Stack`."""

    texts: Sequence[str]
    seconds: float
    load: Load
    gpus: Gpus | None = None


def ceiling_ways(local: InProcess, seconds: float) -> Iterator[Way]:
    """The model inside this process."""
    yield Way("ceiling", "one text at a time, one core", lambda: local.alone(seconds))
    yield Way("ceiling", "one by one, all cores", lambda: local.one_by_one(seconds))
    yield Way("ceiling", "groups of like length, all cores", lambda: local.sorted_groups(seconds))


def precision_ways(fp32: InProcess, seconds: float) -> Iterator[Way]:
    """The same in FP32; the ceiling's ways are what it is compared with."""
    yield Way("precision", "FP32, one by one, all cores", lambda: fp32.one_by_one(seconds))
    yield Way("precision", "FP32, groups of like length, all cores", lambda: fp32.sorted_groups(seconds))


def grpc_ways(setting: Setting, triton: GrpcTarget, meter: Meter) -> Iterator[Way]:
    """Direct calls to the served ensemble."""
    for batch, calls in GRPC_CALLS:
        ask = partial(over_grpc, triton, meter.model.ensemble, setting.texts, batch, calls, setting.seconds)
        name = f"{calls} {_plural(calls, 'call')} at once, {batch} {_plural(batch, 'text')} each"
        yield Way("grpc", name, partial(meter.around, ask), {"calls": calls, "call_texts": batch})


def http_ways(
    setting: Setting, served: Sequence[Served], connections: Sequence[int], invariance: Invariance
) -> Iterator[Way]:
    """The real model through each gateway."""
    for gateway in served:
        for count in connections:

            def measure(gateway: Served = gateway, count: int = count) -> Sample:
                invariance.compare(gateway.real, count, _COMPARED * setting.seconds)
                return gateway.meter.around(_http(setting, gateway.real, count))

            yield Way("http", _name(count, gateway.workers), measure, _facts(count, gateway.workers))


def null_ways(
    setting: Setting,
    served: Sequence[Served],
    connections: Sequence[int],
    triton: GrpcTarget,
    one_call_each: Served | None,
) -> Iterator[Way]:
    """The null model: what everything but the model costs, and what one gRPC call a text would."""
    for gateway in served:
        for count in connections:
            ask = _http(setting, gateway.null, count)
            yield Way(
                "null",
                _name(count, gateway.workers),
                partial(gateway.null_meter.around, ask),
                _facts(count, gateway.workers),
            )
    if one_call_each is not None:
        ask = _http(setting, one_call_each.null, NULL_AT_ONCE)
        yield Way(
            "null",
            f"{_name(NULL_AT_ONCE, 1)}, one gRPC call a text",
            partial(one_call_each.null_meter.around, ask),
            {"calls": NULL_AT_ONCE, "gateway": 1},
        )
    meter = served[0].null_meter
    call = partial(over_grpc, triton, meter.model.ensemble, setting.texts, 1, NULL_AT_ONCE, setting.seconds)
    name = f"no gateway, {NULL_AT_ONCE} gRPC calls at once of 1 text"
    yield Way("null", name, partial(meter.around, call), {"calls": NULL_AT_ONCE, "gateway": 0})


def length_ways(setting: Setting, target: Target, exact: ExactTexts) -> Iterator[Way]:
    """Texts of one length each, alone and under load, a third of the time each.

    With our own client, which waits for the answers that are due at the end: the longest take seconds.
    """
    short = setting.seconds / 3
    for tokens in LENGTHS:
        texts = exact.make(tokens, _TEXTS_OF_A_LENGTH)
        for count in LENGTH_CONNECTIONS:
            ask = partial(over_http, target, texts, count, short)
            yield Way(
                "length",
                f"{tokens} tokens, {count} {_plural(count, 'connection')}",
                ask if setting.gpus is None else partial(setting.gpus.around, ask),
                {"tokens": tokens, "connections": count},
            )


def _http(setting: Setting, target: Target, connections: int) -> Callable[[], Sample]:
    return partial(setting.load, target, setting.texts, connections, setting.seconds)


def _name(connections: int, workers: int) -> str:
    name = f"{connections} {_plural(connections, 'connection')}"
    return name if workers == 1 else f"{name}, {workers} gateway processes"


def _facts(connections: int, workers: int) -> dict[str, int]:
    return {"connections": connections, "workers": workers}


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else noun + "s"

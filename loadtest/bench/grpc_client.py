"""Calls of ModelInfer, to Triton itself or to the gateway, and Triton's own statistics."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
import uvloop
from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtest.bench.figures import Sample, timed
from loadtest.client import LoadError
from loadtest.inference import infer_request

Metadata = tuple[tuple[str, str], ...]
_TIMEOUT_S = 120.0
"""128 calls of 32 texts at once take a slow machine half a minute."""
# Channels of one process would share their connection, which is not what clients of their own do.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True)
class GrpcTarget:
    """Where a server listens for gRPC, and the metadata that it wants: a key or a token."""

    address: str
    metadata: Metadata = field(repr=False)


def over_grpc(
    target: GrpcTarget,
    model: str,
    texts: Sequence[str],
    batch: int,
    concurrency: int,
    seconds: float,
    outputs: Sequence[str] = (),
) -> Sample:
    """Closed loop of ``concurrency`` calls of ``batch`` texts each, over one channel.

    Args:
        target: the server.
        model: the name of the model or ensemble.
        texts: to ask in turn.
        batch: texts a call.
        concurrency: calls at once.
        seconds: how long.
        outputs: what to request; all if none is named.

    Raises:
        LoadError: a call failed.
    """
    count = max(1, len(texts) // batch)
    requests = [infer_request(model, texts[n * batch : (n + 1) * batch], outputs) for n in range(count)]
    try:
        return uvloop.run(_load(target, requests, batch, concurrency, seconds))
    except grpc.RpcError as error:
        raise LoadError(f"the server answered {error.code().name} over gRPC") from error


async def _load(
    target: GrpcTarget, requests: Sequence[Any], batch: int, concurrency: int, seconds: float
) -> Sample:
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(target.address, options=_OPTIONS) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        await infer(requests[0], metadata=target.metadata, timeout=_TIMEOUT_S)  # connects
        begin = time.perf_counter()

        async def caller(start: int) -> None:
            for turn in itertools.count(start):
                sent = time.perf_counter()
                if sent - begin >= seconds:
                    return
                await infer(requests[turn % len(requests)], metadata=target.metadata, timeout=_TIMEOUT_S)
                latencies.append(time.perf_counter() - sent)

        await asyncio.gather(
            *(caller(number * len(requests) // concurrency) for number in range(concurrency))
        )
        return timed(latencies, time.perf_counter() - begin, batch)


@dataclass(frozen=True)
class Counts:
    """What one model has done so far: texts, requests, executions, and executions by batch size."""

    texts: int
    requests: int
    executions: int
    sizes: Counter[int]

    def __sub__(self, before: Counts) -> Counts:
        """What it has done since ``before``."""
        return Counts(
            self.texts - before.texts,
            self.requests - before.requests,
            self.executions - before.executions,
            self.sizes - before.sizes,
        )


class Statistics:
    """Reads ModelStatistics; a context manager that holds a channel."""

    def __init__(self, target: GrpcTarget) -> None:
        self._metadata = target.metadata
        self._channel = grpc.insecure_channel(target.address, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> Statistics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def read(self, model: str) -> Counts:
        """All versions of a model together."""
        request = service_pb2.ModelStatisticsRequest(name=model)
        answer = self._stub.ModelStatistics(request, metadata=self._metadata, timeout=_TIMEOUT_S)
        sizes: Counter[int] = Counter()
        texts = requests = executions = 0
        for version in answer.model_stats:
            texts += version.inference_count
            requests += version.inference_stats.success.count
            executions += version.execution_count
            for batch in version.batch_stats:
                sizes[batch.batch_size] += batch.compute_infer.count
        return Counts(texts, requests, executions, sizes)

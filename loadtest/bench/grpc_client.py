"""Triton itself: direct ModelInfer calls to an ensemble, and its own statistics."""

from __future__ import annotations

import asyncio
import itertools
import struct
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

Metadata = tuple[tuple[str, str], ...]
_TIMEOUT_S = 30.0
# Channels of one process would share their connection, which is not what clients of their own do.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True)
class Triton:
    """Where Triton listens for gRPC, and the metadata that opens its restricted protocols."""

    address: str
    metadata: Metadata = field(repr=False)


def over_grpc(
    triton: Triton, ensemble: str, texts: Sequence[str], batch: int, concurrency: int, seconds: float
) -> Sample:
    """Closed loop of ``concurrency`` calls of ``batch`` texts each, over one channel.

    Raises:
        LoadError: a call failed.
    """
    count = max(1, len(texts) // batch)
    requests = [infer_request(ensemble, texts[n * batch : (n + 1) * batch]) for n in range(count)]
    try:
        return uvloop.run(_load(triton, requests, batch, concurrency, seconds))
    except grpc.RpcError as error:
        raise LoadError(f"Triton answered {error.code().name}") from error


def infer_request(ensemble: str, texts: Sequence[str]) -> Any:
    """A ModelInferRequest for TEXT BYTES [n, 1] (KServe v2, raw tensor contents)."""
    request = service_pb2.ModelInferRequest(model_name=ensemble)
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(texts), 1])
    parts = [text.encode() for text in texts]
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(part)) + part for part in parts))
    return request


async def _load(
    triton: Triton, requests: Sequence[Any], batch: int, concurrency: int, seconds: float
) -> Sample:
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(triton.address, options=_OPTIONS) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        await infer(requests[0], metadata=triton.metadata, timeout=_TIMEOUT_S)  # connects
        begin = time.perf_counter()

        async def caller(start: int) -> None:
            for turn in itertools.count(start):
                sent = time.perf_counter()
                if sent - begin >= seconds:
                    return
                await infer(requests[turn % len(requests)], metadata=triton.metadata, timeout=_TIMEOUT_S)
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

    def __init__(self, triton: Triton) -> None:
        self._metadata = triton.metadata
        self._channel = grpc.insecure_channel(triton.address, options=_OPTIONS)
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

"""A client that sends Triton the same calls as the gateway, to find out whether it answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from embedded.repository import RepositoryModel

TEXT = b"This is a canary."
TIMEOUT_S = 2.0
"""For an answer while starting; a probe that takes longer is awaited again."""
# gRPC's own back-off starts at a second, which a start-up of three would notice.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
    # A connection of its own, without the back-off of another channel to this address.
    ("grpc.use_local_subchannel_pool", 1),
]
Statistics: TypeAlias = dict[str, tuple[int, int]]
"""For each model of Triton: requests that succeeded, executions."""


class Canary:
    """A small client for liveness and readiness; the gateway has its own for traffic."""

    def __init__(self, address: str, key: str, secret: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = ((f"triton-grpc-protocol-{key}", secret),)
        self._pending_probes: dict[str, grpc.Future[Any]] = {}

    def __enter__(self) -> Canary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what is under way is cancelled."""
        self._channel.close()

    def answers(self, models: Iterable[RepositoryModel]) -> bool:
        """Whether the server is ready and every model has answered once."""
        try:
            ready = self._stub.ServerReady(
                service_pb2.ServerReadyRequest(), timeout=TIMEOUT_S, metadata=self._metadata
            )
            if not ready.ready:
                return False
            return all(self._answered(model) for model in models)
        except grpc.RpcError:
            return False

    def _answered(self, model: RepositoryModel) -> bool:
        probe = self._pending_probes.pop(model.ensemble, None) or self.probe(model)
        try:
            probe.result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError:
            self._pending_probes[model.ensemble] = probe
            return False
        return True

    def probe(self, model: RepositoryModel) -> grpc.Future[Any]:
        """Begin to score one text, or of a reranker one pair.

        Without a deadline: Triton 2.51 crashes when an inference is cancelled at the moment at which it ends.
        """
        tensor = service_pb2.ModelInferRequest.InferInputTensor
        request = service_pb2.ModelInferRequest(
            model_name=model.ensemble,
            inputs=[tensor(name=name, datatype="BYTES", shape=[1, 1]) for name in model.inputs],
            raw_input_contents=[struct.pack("<I", len(TEXT)) + TEXT] * len(model.inputs),
        )
        call: grpc.Future[Any] = self._stub.ModelInfer.future(request, metadata=self._metadata)
        return call

    def request_statistics(self, timeout_s: float) -> grpc.Future[Any]:
        """Begin to request the models' statistics; `read_statistics` reads the answer."""
        request = service_pb2.ModelStatisticsRequest()
        call: grpc.Future[Any] = self._stub.ModelStatistics.future(
            request, timeout=timeout_s, metadata=self._metadata
        )
        return call


def read_statistics(answer: service_pb2.ModelStatisticsResponse) -> Statistics:
    """Add up the statistics of each model over its versions."""
    found: Statistics = {}
    for model in answer.model_stats:
        successes, executions = found.get(model.name, (0, 0))
        found[model.name] = (
            successes + model.inference_stats.success.count,
            executions + model.execution_count,
        )
    return found

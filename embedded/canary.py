"""Ask Triton the way the gateway will, to know that it really answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from embedded.repository import Model

TEXT = b"Is anyone there?"
TIMEOUT_S = 2.0
"""For an answer while starting; who waits looks again."""
# gRPC's own back-off starts at a second, which a start-up of three would notice.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
    # Its own connection: what it finds out must not be what somebody else's back-off hides.
    ("grpc.use_local_subchannel_pool", 1),
]
Counts: TypeAlias = dict[str, tuple[int, int]]
"""For each model of Triton: requests that succeeded, executions."""


class Canary:
    """A small client for life and readiness; the gateway has its own for traffic."""

    def __init__(self, address: str, key: str, secret: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = ((f"triton-grpc-protocol-{key}", secret),)
        self._songs: dict[str, grpc.Future[Any]] = {}

    def __enter__(self) -> Canary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what is under way is cancelled."""
        self._channel.close()

    def answers(self, models: Iterable[Model]) -> bool:
        """Whether the server is ready and every model has scored one text."""
        try:
            ready = self._stub.ServerReady(
                service_pb2.ServerReadyRequest(), timeout=TIMEOUT_S, metadata=self._metadata
            )
            if not ready.ready:
                return False
            return all(self._answered(model.ensemble) for model in models)
        except grpc.RpcError:
            return False

    def _answered(self, ensemble: str) -> bool:
        song = self._songs.pop(ensemble, None) or self.sing(ensemble)
        try:
            song.result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError:
            self._songs[ensemble] = song
            return False
        return True

    def sing(self, ensemble: str) -> grpc.Future[Any]:
        """Begin to score one text.

        Without a deadline: Triton 2.51 dies of an inference that is cancelled in the moment in which it ends.
        """
        request = service_pb2.ModelInferRequest(
            model_name=ensemble,
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(name="TEXT", datatype="BYTES", shape=[1, 1])
            ],
            raw_input_contents=[struct.pack("<I", len(TEXT)) + TEXT],
        )
        call: grpc.Future[Any] = self._stub.ModelInfer.future(request, metadata=self._metadata)
        return call

    def count(self, timeout_s: float) -> grpc.Future[Any]:
        """Begin to ask what the models have done so far; `counts` reads the answer."""
        request = service_pb2.ModelStatisticsRequest()
        call: grpc.Future[Any] = self._stub.ModelStatistics.future(
            request, timeout=timeout_s, metadata=self._metadata
        )
        return call


def counts(answer: service_pb2.ModelStatisticsResponse) -> Counts:
    """What each model has done, all of its versions together."""
    found: Counts = {}
    for model in answer.model_stats:
        successes, executions = found.get(model.name, (0, 0))
        found[model.name] = (
            successes + model.inference_stats.success.count,
            executions + model.execution_count,
        )
    return found

"""Triton over gRPC, as the domain's Backend."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.domain.backend import RawScores
from gateway.domain.catalogue import Ensemble, Model
from gateway.domain.errors import (
    AiError,
    BackendFailed,
    BackendUnavailable,
    DeadlineExceeded,
    ModelUnavailable,
)
from gateway.triton.errors import mapped_errors
from gateway.triton.wire import MalformedResponse, infer_request, read_scores

_log = logging.getLogger("tritonflare.backend")

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "inference.GRPCInferenceService"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "NOT_FOUND"],
                },
            }
        ]
    }
)
"""When a Triton is killed (UNAVAILABLE) or has unloaded the model, the next attempt goes to the next in turn.

One that stops in order goes on taking calls for seconds and answers NOT_FOUND, to calls for models that the
catalogue has. Nothing that the gateway asks changes anything, so asking twice does no harm. All attempts
share the call's deadline; they take 0.15 s at most. Five is as many as gRPC allows, and not always enough:
calls that run side by side break the turns.
"""

Metadata = tuple[tuple[str, str], ...]
ObserveCall = Callable[[Model, str, float], None]
"""Told the model, the outcome (``ok`` or the name of our error) and the seconds of each inference call."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How to reach Triton; see the settings of the same names."""

    url: str
    max_message_bytes: int
    control_timeout_s: float
    restricted_key: tuple[str, str] | None = None
    """Name and secret of ``--grpc-restricted-protocol``."""


def channel_options(max_message_bytes: int) -> list[tuple[str, int | str]]:
    """Return the gRPC channel arguments.

    Back-off stays well below a second: Triton is near, and its return must show at once. Pings go out
    only while calls are running, because a server counts others as abuse.
    """
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.service_config", _SERVICE_CONFIG),
        # What is larger is sent once only; gRPC keeps a copy of the others until they are answered.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        ("grpc.dns_min_time_between_resolutions_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # A proxy from the environment must not catch calls to loopback or to the cluster.
        ("grpc.enable_http_proxy", 0),
        # Channels of one process share connections, and so each other's back-off, unless told not to.
        ("grpc.use_local_subchannel_pool", 1),
    ]


class TritonClient:
    """A Backend over one gRPC channel; open it inside the event loop that uses it."""

    def __init__(self, options: TritonOptions, observe: ObserveCall) -> None:
        self._options = options
        self._observe = observe
        self._metadata: Metadata = ()
        if options.restricted_key is not None:
            name, secret = options.restricted_key
            self._metadata = ((f"triton-grpc-protocol-{name.lower()}", secret),)
        self._channel: grpc.aio.Channel | None = None
        self._stub: service_pb2_grpc.GRPCInferenceServiceStub | None = None

    async def open(self) -> None:
        """Make the channel; it connects by itself, whenever Triton is there."""
        self._channel = grpc.aio.insecure_channel(
            self._options.url, options=channel_options(self._options.max_message_bytes)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel at once; requests have been drained before."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._stub = None

    async def discover(self) -> Sequence[Ensemble]:
        """List the ready ensembles (RepositoryIndex, then ModelConfig of each model); see Backend."""
        names = await self._ready_models()
        found = [await self._ensemble(name) for name in names]
        return [ensemble for ensemble in found if ensemble is not None]

    async def classify(self, model: Model, texts: Sequence[bytes], deadline_s: float) -> Sequence[RawScores]:
        """Run one ModelInfer on all ``texts``; see Backend."""
        started = time.perf_counter()
        outcome = "ok"
        try:
            return await self._infer(model, texts, deadline_s)
        except AiError as exc:
            outcome = type(exc).__name__
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self._observe(model, outcome, time.perf_counter() - started)

    async def _infer(self, model: Model, texts: Sequence[bytes], deadline_s: float) -> list[RawScores]:
        if deadline_s <= 0:
            raise DeadlineExceeded
        request = infer_request(model.ensemble, texts)
        ends = time.monotonic() + deadline_s
        try:
            response = await self._answer(model, request, deadline_s)
        except (BackendUnavailable, ModelUnavailable):
            # All of gRPC's attempts may have met the one of several that is stopping.
            left_s = ends - time.monotonic()
            if left_s <= 0:
                raise
            response = await self._answer(model, request, left_s)
        try:
            return read_scores(response, len(texts), len(model.labels))
        except MalformedResponse as exc:
            _log.error("ModelInfer %s: %s", model.ensemble, exc)
            raise BackendFailed from exc

    async def _answer(
        self, model: Model, request: service_pb2.ModelInferRequest, deadline_s: float
    ) -> service_pb2.ModelInferResponse:
        with mapped_errors(f"ModelInfer {model.ensemble}"):
            return await self._open_stub.ModelInfer(request, timeout=deadline_s, metadata=self._metadata)

    async def _ready_models(self) -> list[str]:
        request = service_pb2.RepositoryIndexRequest(ready=True)
        with mapped_errors("RepositoryIndex"):
            index = await self._open_stub.RepositoryIndex(
                request, timeout=self._options.control_timeout_s, metadata=self._metadata
            )
        # A model with two served versions is listed twice.
        return sorted({entry.name for entry in index.models})

    async def _ensemble(self, name: str) -> Ensemble | None:
        request = service_pb2.ModelConfigRequest(name=name)
        try:
            with mapped_errors(f"ModelConfig {name}"):
                answer = await self._open_stub.ModelConfig(
                    request, timeout=self._options.control_timeout_s, metadata=self._metadata
                )
        except (BackendFailed, ModelUnavailable):
            # One model that cannot be described must not hide the others; the seam has logged it.
            return None
        config = answer.config
        if config.platform != "ensemble":
            return None
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        return Ensemble(name, parameters, config.max_batch_size)

    @property
    def _open_stub(self) -> service_pb2_grpc.GRPCInferenceServiceStub:
        if self._stub is None:
            raise RuntimeError("the Triton client is not open")
        return self._stub

"""Triton over gRPC, as the domain's Backend."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from gateway.domain.backend import RawScores
from gateway.domain.catalogue import Ensemble, Model
from gateway.domain.errors import AiError, BackendFailed, DeadlineExceeded, ModelUnavailable
from gateway.domain.inputs import ModelInput
from gateway.domain.tasks import Task
from gateway.triton.errors import mapped_errors
from gateway.triton.failover_channel import FailoverChannel
from gateway.triton.outages import Outages
from gateway.triton.status import StubSilent
from gateway.triton.wire import MalformedResponse, Message, infer_request, read_scores

_log = logging.getLogger("tritonflare.backend")

Metadata = tuple[tuple[str, str], ...]
_STUB_PAUSE_S = 0.3
LAST_CALLS_S = 2.0
"""Time for calls whose callers have gone: closing the channel ends them."""
CONFIGS_PER_LOOK = 128
"""How many known models each discovery reads again, in turn: the index shows new versions, but not that the
same version was reloaded from changed files."""
_SERVICE = "/inference.GRPCInferenceService/"
ObserveCall = Callable[[Model, str, float], None]
"""Called with model, outcome (``ok`` or the name of our error) and duration in seconds of each inference."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How to reach Triton; see the settings of the same names."""

    url: str
    max_message_bytes: int
    control_timeout_s: float
    restricted_key: tuple[str, str] | None = None
    """Name and secret of ``--grpc-restricted-protocol``."""


@dataclass(frozen=True, slots=True)
class _Description:
    """The ModelConfig of a model."""

    versions: frozenset[str]
    ensemble: Ensemble | None
    """None for a model that is not an ensemble."""


class TritonClient:
    """A Backend over a gRPC channel; open it inside the event loop that uses it."""

    def __init__(
        self,
        options: TritonOptions,
        observe: ObserveCall,
        trace_context: Callable[[], Metadata] | None = None,
    ) -> None:
        """Call the Triton of ``options``; ``trace_context`` gives the headers of a traced inference."""
        self._options = options
        self._observe = observe
        self._trace_context = trace_context
        self._outages = Outages(options.url)
        self._described: dict[str, _Description] = {}
        """By model, the most recently read last."""
        metadata = []
        if options.restricted_key is not None:
            name, secret = options.restricted_key
            metadata.append((f"triton-grpc-protocol-{name}", secret))
        self._channel = FailoverChannel(options.url, options.max_message_bytes, metadata)

    async def open(self) -> None:
        """Start connecting; lost connections are made again."""
        await self._channel.open()

    async def close(self) -> None:
        """Close the channel, after up to LAST_CALLS_S for calls under way."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._channel.drain(), LAST_CALLS_S)
        await self._channel.close()

    async def discover(self) -> Sequence[Ensemble]:
        """List the ready ensembles (RepositoryIndex, ModelConfig of those that may be new); see Backend."""
        ready = await self._ready_models()
        for name in self._described.keys() - ready.keys():
            del self._described[name]
        unchanged = [name for name, known in self._described.items() if known.versions == ready[name]]
        for name in sorted(ready.keys() - set(unchanged)) + unchanged[:CONFIGS_PER_LOOK]:
            await self._describe(name, ready[name])
        known = (self._described[name].ensemble for name in sorted(self._described))
        return [ensemble for ensemble in known if ensemble is not None]

    async def classify(
        self, model: Model, texts: Sequence[ModelInput], deadline_s: float
    ) -> Sequence[RawScores]:
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

    async def _infer(self, model: Model, texts: Sequence[ModelInput], deadline_s: float) -> list[RawScores]:
        if deadline_s <= 0:
            raise DeadlineExceeded
        request = infer_request(model.ensemble, texts).SerializeToString()
        with mapped_errors(f"ModelInfer {model.ensemble}", self._outages):
            raw = await self._call(request, deadline_s)
        try:
            response = service_pb2.ModelInferResponse.FromString(raw)
            pairs = model.task is Task.RERANK
            return read_scores(response, len(texts), len(model.labels), pairs=pairs)
        except (MalformedResponse, DecodeError) as exc:
            _log.error("ModelInfer %s: %s", model.ensemble, exc)
            raise BackendFailed from exc

    async def _call(self, request: bytes, deadline_s: float) -> bytes:
        """Call ModelInfer, and once more if a python stub of Triton did not respond for a second."""
        ends = time.monotonic() + deadline_s
        metadata = () if self._trace_context is None else self._trace_context()
        try:
            return await self._channel.unary(_SERVICE + "ModelInfer", request, deadline_s, metadata)
        except StubSilent:
            # A machine that stalls for a second causes the same error as a process that has died.
            left_s = ends - time.monotonic() - _STUB_PAUSE_S
            if left_s <= 0:
                raise
            await asyncio.sleep(_STUB_PAUSE_S)
            return await self._channel.unary(_SERVICE + "ModelInfer", request, left_s, metadata)

    async def _ready_models(self) -> dict[str, frozenset[str]]:
        """The models and their versions."""
        request = service_pb2.RepositoryIndexRequest(ready=True)
        index = await self._ask("RepositoryIndex", request, service_pb2.RepositoryIndexResponse)
        found: dict[str, set[str]] = {}
        for entry in index.models:
            found.setdefault(entry.name, set()).add(entry.version)
        return {name: frozenset(versions) for name, versions in found.items()}

    async def _describe(self, name: str, versions: frozenset[str]) -> None:
        request = service_pb2.ModelConfigRequest(name=name)
        try:
            answer = await self._ask("ModelConfig", request, service_pb2.ModelConfigResponse, name)
        except (BackendFailed, ModelUnavailable):
            # One failure must hide neither the other models nor a known one: the index lists it as ready.
            if name in self._described:
                self._described[name] = self._described.pop(name)
            return
        config = answer.config
        ensemble = None
        if config.platform == "ensemble":
            parameters = {key: value.string_value for key, value in config.parameters.items()}
            ensemble = Ensemble(name, parameters, config.max_batch_size)
        self._described.pop(name, None)
        self._described[name] = _Description(versions, ensemble)

    async def _ask(self, method: str, request: Message, answer: Message, about: str = "") -> Message:
        """Make one of the calls that discover models; ``answer`` is the class of its response."""
        with mapped_errors(f"{method} {about}".rstrip(), self._outages):
            raw = await self._channel.unary(
                _SERVICE + method, request.SerializeToString(), self._options.control_timeout_s
            )
        try:
            return answer.FromString(raw)
        except DecodeError as exc:
            raise BackendFailed from exc

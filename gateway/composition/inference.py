"""From a text to its scores: Triton, coalescer, cache, catalogue, health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.domain.cache import AnswerCache
from gateway.domain.catalogue import Catalogue, Ensemble, Model
from gateway.domain.coalescing.coalescer import Coalescer
from gateway.domain.coalescing.queue import CoalescingLimits
from gateway.domain.health import ModelHealth
from gateway.domain.monitor import Monitor, MonitorTimes
from gateway.domain.service import Predictor
from gateway.domain.windows import WindowLimits
from gateway.settings import Settings
from gateway.settings.inference import read_aliases
from gateway.telemetry.metrics import Metrics
from gateway.triton.client import TritonClient, TritonOptions
from gateway.triton.handover import HandoverBackend

if TYPE_CHECKING:
    from gateway.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Inference:
    """From a text to its scores, and what is known of the models."""

    backend: HandoverBackend
    coalescer: Coalescer
    cache: AnswerCache | None
    catalogue: Catalogue
    health: ModelHealth
    monitor: Monitor
    windows: WindowLimits

    @property
    def predictor(self) -> Predictor:
        """The use case, over the cache if there is one."""
        return Predictor(self.coalescer, self.cache, self.windows)

    async def hand_over(self, url: str, drain_s: float) -> None:
        """Send new calls to another Triton; see `HandoverBackend.hand_over`."""
        await self.backend.hand_over(url, self._replace_catalogue, drain_s)

    def _replace_catalogue(self, found: Sequence[Ensemble]) -> None:
        self.catalogue.replace(found)
        for model in self.catalogue:
            self.health.answered(model)  # a handover begins after the new Triton has answered canaries

    async def close(self) -> None:
        """Cancel the calls under way and close the channel to Triton."""
        await self.coalescer.close()
        await self.backend.close()


def compose_inference(settings: Settings, metrics: Metrics, tracing: Tracing | None) -> Inference:
    """Put the inference together; nothing is opened yet."""
    catalogue = Catalogue(read_aliases(settings.aliases))
    health = ModelHealth(settings.canary_max_age_s)
    backend = _backend(settings, metrics, tracing, catalogue)
    coalescer = Coalescer(
        backend,
        CoalescingLimits(
            settings.call_slots, settings.max_call_texts, settings.call_length_ratio, settings.max_queue_s
        ),
        observe=metrics.call_sent,
        answered=health.answered,
        unavailable=health.unavailable,
        tracer=tracing,
    )
    cache = None
    if settings.cache_bytes:
        counters = metrics.cache_counters()
        cache = AnswerCache(coalescer, settings.cache_bytes, counters.looked_up, counters.evicted)
        catalogue.on_replace(cache.serve)
    times = MonitorTimes(
        refresh_interval_s=settings.refresh_interval_s,
        retry_interval_s=settings.retry_interval_s,
        canary_timeout_s=settings.canary_timeout_s,
        request_timeout_s=settings.request_timeout_s,
        canaries_per_s=settings.canaries_per_s,
    )
    monitor = Monitor(backend, coalescer, catalogue, health, times)
    windows = WindowLimits(settings.window_overlap, settings.max_windows)
    return Inference(backend, coalescer, cache, catalogue, health, monitor, windows)


def _backend(
    settings: Settings, metrics: Metrics, tracing: Tracing | None, catalogue: Catalogue
) -> HandoverBackend:
    options = _triton_options(settings)
    call_metadata = tracing.metadata if tracing is not None else None

    def called(model: Model, outcome: str, seconds: float) -> None:
        metrics.triton_called(outcome, seconds)

    def client(url: str) -> TritonClient:
        return TritonClient(replace(options, url=url), called, call_metadata)

    return HandoverBackend(client, options.url, lambda: catalogue)


def _triton_options(settings: Settings) -> TritonOptions:
    key: tuple[str, str] | None = None
    if settings.triton_metadata_key is not None:
        name, _, secret = settings.triton_metadata_key.get_secret_value().partition("=")
        key = (name, secret)
    return TritonOptions(
        url=settings.triton_url,
        max_message_bytes=settings.triton_max_message_bytes,
        control_timeout_s=settings.triton_control_timeout_s,
        restricted_key=key,
    )

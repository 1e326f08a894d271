"""Second models that read what callers sent to others."""

from __future__ import annotations

from gateway.access.admission import Admission
from gateway.composition.inference import Inference
from gateway.domain.service import Predictor
from gateway.settings import Settings
from gateway.settings.inference import read_shadows
from gateway.shadow.mirror import BUSY_SHARE, Capacity, Mirror
from gateway.telemetry.metrics import Metrics

_SPARE_SLOTS = 1


def compose_shadow(
    settings: Settings, inference: Inference, admission: Admission, metrics: Metrics
) -> Mirror | None:
    """Put the mirror together; None if no second model is asked."""
    rules = read_shadows(settings.shadow)
    if not rules:
        return None
    coalescer = inference.coalescer
    mirror = Mirror(
        rules,
        Predictor(coalescer),
        inference.catalogue.find,
        Capacity(
            in_flight=lambda: admission.in_flight,
            has_spare_slot=lambda model: coalescer.is_idle(model, _SPARE_SLOTS),
            is_quiet=lambda: not coalescer.waiting,
            is_available=inference.health.is_healthy,
        ),
        metrics.shadow_counters(),
        settings.request_timeout_s,
        # Each process knows its own calls alone.
        BUSY_SHARE / settings.workers,
    )
    inference.catalogue.on_replace(lambda models: mirror.resolve())
    return mirror

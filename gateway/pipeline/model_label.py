"""The label that a request has in the metrics for its model."""

from __future__ import annotations

from collections.abc import Callable

from gateway.domain.catalogue import Model
from gateway.domain.errors import NoSuchModel
from gateway.telemetry.record import RequestRecord


def label_with_model(record: RequestRecord, find: Callable[[str], Model], name: str) -> Model:
    """Find a model, and label the request with it for the metrics, the log and the answer.

    Args:
        record: receives the label and the version.
        find: a method of `Catalogue`.
        name: from the request; never a label itself, because the number of labels is bounded.

    Raises:
        NoSuchModel: no model of this name is served.
        BackendUnavailable: no model at all is known.
    """
    try:
        model = find(name)
    except NoSuchModel:
        record.model, record.version = "unknown", None
        raise
    record.model, record.version = model.name, model.version_id
    return model

"""Which model a request means."""

from __future__ import annotations

from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import BackendUnavailable, NoModelForTask
from gateway.domain.tasks import Task
from gateway.pipeline.model_label import label_with_model
from gateway.telemetry.record import RequestRecord

_NAMES = {Task.CLASSIFICATION: "classifier", Task.RERANK: "reranker"}


class ModelChoice:
    """Finds the model of a request that may leave it out, because these APIs are made for servers of one."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def find(self, record: RequestRecord, name: str | None, task: Task) -> Model:
        """Find the model of a request, and label the request with it for the metrics.

        Args:
            record: receives the label.
            name: any name of the model; None or empty for the only one of the task.
            task: of the request.

        Raises:
            NoSuchModel: no model of this name is served.
            NoModelForTask: the named one is for another task; or none is named, and none or several are for
                this one.
            BackendUnavailable: no model at all is known.
        """
        if not name:
            return self._only(record, task)
        model = label_with_model(record, self._catalogue.find_by_any_name, name)
        if model.task is not task:
            raise NoModelForTask(f"The model {model.name} is not a {_NAMES[task]}")
        return model

    def any(self, record: RequestRecord, name: str | None) -> Model:
        """Find the model that a question is about: the named one, else the only reranker, else classifier.

        Raises:
            NoSuchModel, NoModelForTask, BackendUnavailable: see `find`.
        """
        if name:
            return label_with_model(record, self._catalogue.find_by_any_name, name)
        has_reranker = any(model.task is Task.RERANK for model in self._catalogue)
        return self._only(record, Task.RERANK if has_reranker else Task.CLASSIFICATION)

    def _only(self, record: RequestRecord, task: Task) -> Model:
        if not len(self._catalogue):
            raise BackendUnavailable
        found = [model for model in self._catalogue if model.task is task]
        if not found:
            raise NoModelForTask(f"No {_NAMES[task]} is served")
        if len(found) > 1:
            names = ", ".join(model.name for model in found)
            raise NoModelForTask(f"Several {_NAMES[task]}s are served; name one of them as 'model': {names}")
        record.model, record.version = found[0].name, found[0].version_id
        return found[0]

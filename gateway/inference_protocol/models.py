"""What the protocol tells about the server and its models; all of it from the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version

import msgspec

from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import BackendUnavailable, NoSuchVersion
from gateway.domain.health import ModelHealth
from gateway.inference_protocol.inputs import INPUTS
from gateway.pipeline.model_label import label_with_model
from gateway.telemetry.record import RequestRecord

SERVER_NAME = "tritonflare"
PLATFORM = "tritonflare"
SERVER_VERSION = package_version("tritonflare")
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration")


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """Name, datatype and shape of an input or output; -1 is the number of texts."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def config_datatype(self) -> str:
        """The datatype as Triton's ModelConfig names it."""
        return "TYPE_STRING" if self.datatype == "BYTES" else f"TYPE_{self.datatype}"


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a client has to know in order to call a model."""

    name: str
    """As the client named it."""
    version: str
    inputs: Sequence[TensorDescription]
    outputs: Sequence[TensorDescription]
    max_batch_size: int
    """Most texts in one request."""
    parameters: dict[str, str]
    """The public name, task, labels in order (a JSON array), problem type and limit of tokens."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One model in the repository index."""

    name: str
    version: str
    ready: bool

    @property
    def state(self) -> str:
        """The state as Triton names it."""
        return "READY" if self.ready else "UNAVAILABLE"

    @property
    def reason(self) -> str:
        """Why it is not ready; empty if it is."""
        return "" if self.ready else "no answer from the model"


class ModelDirectory:
    """Finds and describes models."""

    def __init__(self, catalogue: Catalogue, health: ModelHealth, max_batch_texts: int) -> None:
        self._catalogue = catalogue
        self._health = health
        self._max_batch_texts = max_batch_texts

    def find(self, name: str, version: str, record: RequestRecord) -> Model:
        """Find a model by any of its names, and label the request with it for the metrics.

        Raises:
            NoSuchModel: no model of this name is served.
            NoSuchVersion: another version of it is served.
        """
        model = label_with_model(record, self._catalogue.find_by_any_name, name)
        if version and version != self.version(model):
            raise NoSuchVersion(name, version, self.version(model))
        return model

    def version(self, model: Model) -> str:
        """Return the version of a model as the protocol names it."""
        return model.version or "1"

    def is_ready(self, model: Model) -> bool:
        """Tell whether a model answers; see `ModelHealth`."""
        return self._health.is_healthy(model)

    def index(self, *, only_ready: bool) -> list[IndexEntry]:
        """List the models by their public names.

        Raises:
            BackendUnavailable: no model is known; an empty list would mean that there is none.
        """
        if not len(self._catalogue):
            raise BackendUnavailable
        entries = [
            IndexEntry(model.name, self.version(model), self.is_ready(model)) for model in self._catalogue
        ]
        return [entry for entry in entries if entry.ready or not only_ready]

    def describe(self, name: str, model: Model) -> ModelDescription:
        """Describe a model to a client that calls it ``name``."""
        labels = len(model.labels)
        return ModelDescription(
            name=name,
            version=self.version(model),
            inputs=[TensorDescription(name, "BYTES", (-1, 1)) for name in INPUTS[model.task]],
            outputs=(
                TensorDescription("logits", "FP32", (-1, labels)),
                TensorDescription("probabilities", "FP32", (-1, labels)),
                TensorDescription("label", "BYTES", (-1, 1)),
                TensorDescription("token_count", "INT32", (-1, 1)),
            ),
            max_batch_size=self._max_batch_texts,
            parameters={
                "name": model.name,
                "task": model.task.value,
                "labels": msgspec.json.encode(model.labels).decode(),
                "problem_type": model.problem_type.value,
                "max_tokens": str(model.max_tokens),
            },
        )

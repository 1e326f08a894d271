"""What one served model is, and the limits that its configuration, warm-up and plans share."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from export.errors import ExportError

# Token lengths that warm-up samples and, on a GPU, padding and TensorRT profiles share.
LENGTH_BUCKETS = (16, 32, 64, 128, 256, 512)
MAX_BATCH_SIZE = 64
TASK = "Text Classification"
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")
_NAME = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def ensemble_name(name: str) -> str:
    """The folder and Triton name that belong to a public model name.

    Raises:
        ExportError: the name could leave the repository, or cannot be part of a URL as it is.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"{name!r} cannot be a model name; use letters, digits, '.', '_', '-' and '/', "
            "for example @cf/huggingface/distilbert-sst-2-int8."
        )
    return name.lstrip("@").replace("/", "-")


@dataclass(frozen=True)
class ServedModel:
    """A classifier as the catalogue knows it; every field travels in the ensemble's parameters."""

    name: str
    labels: tuple[str, ...]
    max_tokens: int
    precision: str
    target: str
    problem_type: str
    checkpoint: str
    description: str
    created_at: str
    weights_sha256: str
    tokenizer_sha256: str
    model_sha256: str

    def __post_init__(self) -> None:
        ensemble_name(self.name)
        if not all(self.labels) or len(set(self.labels)) != len(self.labels):
            raise ExportError(f"the labels {', '.join(self.labels)} are not all different and not empty.")
        if self.problem_type not in PROBLEM_TYPES:
            known = " and ".join(PROBLEM_TYPES)
            raise ExportError(f"problem_type {self.problem_type!r} is not classification; known are {known}.")

    @property
    def ensemble(self) -> str:
        """Triton's name of the whole way: text in, logits out."""
        return ensemble_name(self.name)

    @property
    def tokenizer(self) -> str:
        """Triton's name of the first step."""
        return f"{self.ensemble}_tokenizer"

    @property
    def encoder(self) -> str:
        """Triton's name of the second step; it says the precision."""
        return f"{self.ensemble}_encoder_{self.precision}"

    def parameters(self) -> dict[str, str]:
        """The catalogue entry as the ensemble's ``parameters``."""
        return {
            "tritonflare.name": self.name,
            "tritonflare.task": TASK,
            "tritonflare.labels": json.dumps(self.labels),
            "tritonflare.max_tokens": str(self.max_tokens),
            "tritonflare.precision": self.precision,
            "tritonflare.target": self.target,
            "tritonflare.problem_type": self.problem_type,
            "tritonflare.checkpoint": self.checkpoint,
            "tritonflare.description": self.description,
            "tritonflare.created_at": self.created_at,
            "tritonflare.weights_sha256": self.weights_sha256,
            "tritonflare.tokenizer_sha256": self.tokenizer_sha256,
            "tritonflare.model_sha256": self.model_sha256,
        }

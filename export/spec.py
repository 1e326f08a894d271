"""What one served model is, and the limits that its configuration, warm-up and plans share."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from export.errors import ExportError

# Token lengths that warm-up samples and, of Triton's own backends, padding and TensorRT profiles share.
LENGTH_BUCKETS = (16, 32, 64, 128, 256, 512)
MAX_BATCH_SIZE = 64
# Who runs the encoder: python with ONNX Runtime inside, on a CPU or a GPU; Triton's ONNX Runtime backend; a
# TensorRT plan.
TARGETS = ("cpu", "cuda", "onnxruntime", "tensorrt")
IN_PYTHON = ("cpu", "cuda")
# A python process has several threads; of Triton's own backends, one copy computes while another's batch is
# gathered.
INSTANCES = {"cpu": 1, "cuda": 1, "onnxruntime": 2, "tensorrt": 2}
# Of the target cuda; not measured on a GPU.
GROUP_TEXTS, GROUP_TOKENS = 64, 16384
# Matrix units of a GPU work on 8 numbers of FP16 at once.
PAD_MULTIPLE = 8
# A step each for tokenizer and encoder, or both in one python step, which a call enters and leaves once.
STEPS, JOINED = "steps", "joined"
LAYOUTS = (STEPS, JOINED)
PREFIX = "tritonflare."
CLASSIFICATION, RERANK = "classification", "rerank"
TASKS = (CLASSIFICATION, RERANK)
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")
ENCODER_INPUTS = ("input_ids", "attention_mask")
TYPE_IDS = "token_type_ids"
# What ServedModel.tokenizer may give.
TOKENIZER = re.compile(r"tokenizer_[0-9a-f]{12}_\d+(_pad\d+)?(_pairs(_types)?)?(_padded)?")
_NAME = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def ensemble_name(name: str) -> str:
    """The folder and Triton name that belong to a public model name.

    Raises:
        ExportError: the name could leave the repository, cannot be part of a URL as it is, or is
            a tokenizer's.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"{name!r} cannot be a model name; use letters, digits, '.', '_', '-' and '/', "
            "for example @cf/huggingface/distilbert-sst-2-int8."
        )
    ensemble = name.lstrip("@").replace("/", "-")
    if TOKENIZER.fullmatch(ensemble):
        raise ExportError(
            f"{name!r} cannot be a model name: tokenizers are called so; choose another --name."
        )
    return ensemble


def own_prefixes(ensemble: str) -> tuple[str, str]:
    """How the names of the steps begin that one model has for itself."""
    return (f"{ensemble}_encoder_", f"{ensemble}_joined_")


def length_buckets(max_tokens: int) -> tuple[int, ...]:
    """The buckets that fit a model, in tokens; the last one holds its longest input."""
    return (*(bucket for bucket in LENGTH_BUCKETS if bucket < max_tokens), max_tokens)


def warmup_texts(max_tokens: int) -> dict[str, str]:
    """What warms up a step that tokenizes, by the sample's name: an ordinary text, and one for each bucket.

    A tokenizer that makes less than a token of each word leaves the longest buckets cold. An export checks
    that it makes tokens of all of them: Triton loads no model that answers a sample with an error.
    """
    words = {f"text_{length}": "great " * length for length in length_buckets(max_tokens)}
    return {"text": "This pizza is great!"} | words


@dataclass(frozen=True)
class ServedModel:
    """A model as the catalogue knows it; every field but the layout travels in the ensemble's parameters."""

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
    """Of the ONNX file: the one that is served, or the one that a plan is built from."""
    pad_id: int = 0
    """The token that fills a row up; RoBERTa's is 1."""
    instances: int = 1
    """How many copies of the encoder run at once: on a GPU, for each GPU; on a CPU they share the cores."""
    version: int = 1
    """The folder that Triton serves; publishing sets it."""
    task: str = CLASSIFICATION
    """One of TASKS: a reranker takes QUERY and TEXT, and gives one logit."""
    token_types: bool = False
    """Whether the encoder reads token types, which only pairs have; a parameter only where it does."""
    aliases: tuple[str, ...] = ()
    """Other public names; a parameter only where there are any."""
    layout: str = STEPS
    """One of LAYOUTS; no parameter, because the ensemble's steps tell."""
    group_texts: int = GROUP_TEXTS
    """Most texts that a GPU computes together; like group_tokens a parameter only of the target cuda."""
    group_tokens: int = GROUP_TOKENS
    """Most tokens that a GPU computes together, padding included."""
    special_tokens: int | None = None
    """Tokens that the tokenizer adds to each text; a parameter of classifiers, whose texts have windows."""

    def __post_init__(self) -> None:
        ensemble_name(self.name)
        if not all(self.labels) or len(set(self.labels)) != len(self.labels):
            raise ExportError(f"the labels {', '.join(self.labels)} are not all different and not empty.")
        if self.problem_type not in PROBLEM_TYPES:
            known = " and ".join(PROBLEM_TYPES)
            raise ExportError(f"problem_type {self.problem_type!r} is not classification; known are {known}.")
        if self.target not in TARGETS:
            raise ExportError(f"{self.target!r} is no target; known are {', '.join(TARGETS)}.")
        if self.layout not in LAYOUTS:
            raise ExportError(f"{self.layout!r} is no layout; known are {' and '.join(LAYOUTS)}.")
        if self.layout == JOINED and self.target != "cpu":
            raise ExportError("the layout joined is for the target cpu.")
        if self.instances < 1:
            raise ExportError("a model needs at least one instance.")
        if self.group_texts < 1 or self.group_tokens < 1:
            raise ExportError("a group needs room for at least one text of one token.")
        self._check_task()

    def _check_task(self) -> None:
        if self.task not in TASKS:
            raise ExportError(f"{self.task!r} is no task; known are {' and '.join(TASKS)}.")
        if self.task == RERANK and (len(self.labels) != 1 or self.problem_type != PROBLEM_TYPES[1]):
            raise ExportError("a reranker has one label, with a sigmoid of its own.")
        if self.token_types and self.task != RERANK:
            raise ExportError("only pairs of texts have token types.")

    @property
    def ensemble(self) -> str:
        """Triton's name of the whole way: text in, logits out."""
        return ensemble_name(self.name)

    @property
    def padded(self) -> bool:
        """Whether the tokenizer pads to buckets: only an encoder in python takes unequal lengths."""
        return self.target not in IN_PYTHON

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the ensemble takes, BYTES [1] each."""
        return ("QUERY", "TEXT") if self.task == RERANK else ("TEXT",)

    @property
    def encoder_inputs(self) -> tuple[str, ...]:
        """What the encoder takes, INT64 [S] each."""
        return (*ENCODER_INPUTS, TYPE_IDS) if self.token_types else ENCODER_INPUTS

    @property
    def tokenizer(self) -> str:
        """Triton's name of the first step: what it does, so that models can share it.

        Of the layout ``joined`` it is the only step, which the model has for itself.
        """
        if self.layout == JOINED:
            return self.encoder
        pad = f"_pad{self.pad_id}" if self.pad_id else ""
        pairs = "_pairs" * (self.task == RERANK) + "_types" * self.token_types
        does = f"{pad}{pairs}{'_padded' * self.padded}"
        return f"tokenizer_{self.tokenizer_sha256[:12]}_{self.max_tokens}{does}"

    @property
    def encoder(self) -> str:
        """Triton's name of the last step; it contains the precision."""
        if self.layout == JOINED:
            return f"{self.ensemble}_joined_{self.precision}"
        plan = "_plan" if self.target == "tensorrt" else ""
        return f"{self.ensemble}_encoder_{self.precision}{plan}"

    def parameters(self) -> dict[str, str]:
        """The catalogue entry as the ensemble's ``parameters``."""
        values = {
            "name": self.name,
            "version": str(self.version),
            "task": self.task,
            "labels": json.dumps(self.labels),
            "max_tokens": str(self.max_tokens),
            "precision": self.precision,
            "target": self.target,
            "problem_type": self.problem_type,
            "checkpoint": self.checkpoint,
            "description": self.description,
            "created_at": self.created_at,
            "pad_id": str(self.pad_id),
            "instances": str(self.instances),
            "weights_sha256": self.weights_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "model_sha256": self.model_sha256,
        }
        if self.token_types:
            values |= {"token_types": "true"}
        if self.special_tokens is not None and self.task == CLASSIFICATION:
            values |= {"special_tokens": str(self.special_tokens)}
        if self.aliases:
            values |= {"aliases": json.dumps(self.aliases)}
        if self.target == "cuda":
            values |= {"group_texts": str(self.group_texts), "group_tokens": str(self.group_tokens)}
        return {PREFIX + key: value for key, value in values.items()}

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits over all parameters but number and date.

        It is the one that gateways tell callers as part of `x-model-version`; both compute it alike.
        """
        rest = [
            [key, value]
            for key, value in sorted(self.parameters().items())
            if key.removeprefix(PREFIX) not in ("version", "created_at")
        ]
        return hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:8]

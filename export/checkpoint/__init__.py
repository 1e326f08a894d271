"""A Hugging Face text classifier, read into one shape for every family, without torch."""

from export.checkpoint.files import sha256
from export.checkpoint.load import load_checkpoint
from export.checkpoint.model import Array, Checkpoint, Encoder, Layer, Linear, Norm
from export.checkpoint.source import resolve_source

__all__ = [
    "Array",
    "Checkpoint",
    "Encoder",
    "Layer",
    "Linear",
    "Norm",
    "load_checkpoint",
    "resolve_source",
    "sha256",
]

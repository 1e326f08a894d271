"""A Hugging Face text classifier, read into one shape for every family, without torch.

The names are imported when they are first used: reading a folder's files needs neither numpy nor a
tokenizer, and an export that is skipped must not wait for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.checkpoint.files import sha256
    from export.checkpoint.load import load_checkpoint
    from export.checkpoint.model import Array, Checkpoint, Encoder, Layer, Linear, Norm
    from export.checkpoint.source import resolve_source
else:
    _MODULES = {"load_checkpoint": "load", "resolve_source": "source", "sha256": "files"}

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'model')}"), name)


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

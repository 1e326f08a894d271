"""Tensors of safetensors files, read one at a time and widened to FP32; pickles are never opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (teaches numpy bfloat16, which safetensors then finds by name)
import numpy as np
from safetensors import SafetensorError, safe_open

from export.checkpoint.files import check_readable, display_name, read_object, require, sha256
from export.checkpoint.model import Array
from export.errors import CheckpointError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
# Where the layers are, in any family.
_STACKS = ("encoder.layer.", "transformer.layer.")
_FLOATS = ("F64", "F32", "F16", "BF16")
_DAMAGE = (SafetensorError, OSError, ValueError, TypeError, KeyError, OverflowError)


def weight_files(folder: Path) -> list[Path]:
    """``model.safetensors`` or the shards that its index names.

    Raises:
        CheckpointError: there are none, or only weights in formats that can run code.
    """
    if (folder / _SINGLE).exists():
        return [require(folder, _SINGLE)]
    if not (folder / _INDEX).exists():
        _refuse_pickles(folder)
        return [require(folder, _SINGLE)]
    shards = read_object(folder, _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{display_name(folder)}/{_INDEX} names no files.")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{display_name(folder)}/{_INDEX} names {name!r}, which is no weights file."
            )
    return [require(folder, name) for name in names]


def weights_digest(files: Sequence[Path]) -> str:
    """SHA-256 of the only file, or of the shards' digests, one a line."""
    digests = [sha256(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def _refuse_pickles(folder: Path) -> None:
    found = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if found:
        raise CheckpointError(
            f"{display_name(folder)} holds its weights only as {found[0]}, a format that can run code when "
            "it is read; convert it where you trust it, with transformers' "
            "save_pretrained(folder, safe_serialization=True), and export that folder."
        )


class Tensors:
    """Tensors by the names of their family without its prefix, as in ``embeddings.LayerNorm.weight``.

    Files of the same model differ in names: with and without ``bert.``, with ``module.`` of a
    parallel trainer, with ``gamma`` and ``beta`` in older ones.
    """

    def __init__(self, files: Sequence[Path], prefix: str) -> None:
        self._where = (
            f"{display_name(files[0].parent)}/{files[0].name if len(files) == 1 else '*.safetensors'}"
        )
        self._prefix = prefix
        self._found: dict[str, tuple[Any, str]] = {}
        self._read: set[str] = set()
        for file in files:
            check_readable(file)
            try:
                opened: Any = safe_open(file, framework="numpy")
                names = list(opened.keys())
            except _DAMAGE as error:
                raise CheckpointError(
                    f"{display_name(file.parent)}/{file.name} is damaged or cut short ({error})."
                ) from error
            for name in names:
                self._add(name, opened)

    def _add(self, name: str, opened: Any) -> None:
        plain = self._plain(name)
        if plain in self._found:
            raise CheckpointError(
                f"{self._where} holds both {self._found[plain][1]!r} and {name!r}, which are one tensor; "
                "take out the one that is not meant."
            )
        self._found[plain] = opened, name

    def _plain(self, name: str) -> str:
        name = name.removeprefix("module.").removeprefix(self._prefix)
        return name.replace(".gamma", ".weight").replace(".beta", ".bias")

    def rows(self, name: str) -> int:
        """Rows of a table whose size the config does not give; at least one."""
        shape = self._shape(name)
        if len(shape) != 2 or not shape[0]:
            raise CheckpointError(
                f"{self._where}: tensor {name!r} has shape {list(shape)}; it must be a table."
            )
        return shape[0]

    def _shape(self, name: str) -> tuple[int, ...]:
        opened, stored = self._require(name)
        return tuple(opened.get_slice(stored).get_shape())

    def read(self, name: str, *shape: int, transposed: bool = False) -> Array:
        """A tensor as FP32, contiguous, optionally with its two axes swapped.

        Raises:
            CheckpointError: it is missing, has another shape, is not a float, or is not finite.
        """
        opened, stored = self._require(name)
        self._read.add(name)
        kind, found = opened.get_slice(stored).get_dtype(), self._shape(name)
        if found != shape:
            raise CheckpointError(
                f"{self._where}: tensor {stored!r} has shape {list(found)} where its config asks "
                f"for {list(shape)}."
            )
        if kind not in _FLOATS:
            raise CheckpointError(
                f"{self._where}: tensor {stored!r} holds {kind}; only unquantised weights "
                f"({', '.join(_FLOATS)}) can be exported."
            )
        try:
            tensor = opened.get_tensor(stored)
        except _DAMAGE as error:
            raise CheckpointError(f"{self._where}: tensor {stored!r} is damaged ({error}).") from error
        with np.errstate(over="ignore"):  # a double that FP32 cannot hold is caught below
            value = np.ascontiguousarray(tensor.T if transposed else tensor, dtype=np.float32)
        # The extremes are NaN or infinite if any element is, and need no second array.
        if not np.isfinite([value.min(), value.max()]).all():
            raise CheckpointError(
                f"{self._where}: tensor {stored!r} holds numbers that are not finite (NaN or infinity)."
            )
        return value

    def refuse_unread_layers(self) -> None:
        """Raises CheckpointError if any part of a layer was not read: the config is another model's."""
        unread = sorted(name for name in self._found.keys() - self._read if name.startswith(_STACKS))
        if unread:
            raise CheckpointError(
                f"{self._where} holds {self._found[unread[0]][1]!r}, which its config.json knows nothing of; "
                "correct the number of layers there."
            )

    def _require(self, name: str) -> tuple[Any, str]:
        if name not in self._found:
            raise CheckpointError(
                f"{self._where} has no tensor {name!r}; it is no trained text classifier, or not all of one."
            )
        return self._found[name]

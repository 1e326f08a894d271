"""What `tritonflare export` wrote for this script: one folder per model (schema 1).

kit.json                     names, profiles, flags, candidates with their limits
samples.json, samples/*.bin  evaluation sentences in batches that trtexec can load
<precision>/                 model.onnx, encoder.config.pbtxt with warmup/, ensemble.config.pbtxt
fallback.config.pbtxt        the ensemble as it was published, on ONNX Runtime
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

SCHEMA = 1
INPUTS = ("input_ids", "attention_mask")


class KitError(Exception):
    """The kit is damaged or of another schema; one sentence for the person at the terminal."""


@dataclass(frozen=True)
class Profile:
    """One optimisation profile; shapes are [batch, tokens] of each input."""

    min: tuple[int, int]
    opt: tuple[int, int]
    max: tuple[int, int]
    inputs: tuple[str, ...] = INPUTS


@dataclass(frozen=True)
class Limits:
    """The gate: accuracy_drop is a fraction (0.002 = 0.2 points), speedup is against FP16."""

    accuracy_drop: float
    agreement: float
    speedup: float


@dataclass(frozen=True)
class Candidate:
    """One ONNX file that may become the served plan."""

    precision: str
    encoder: str
    onnx_sha256: str
    limits: Limits
    folder: Path


@dataclass(frozen=True)
class Batch:
    """Inputs [rows, tokens] INT64 in a .bin file each, and the FP32 model's answers to them.

    share is the part of all texts that has this length; logits and labels are empty in a
    batch that is there to be timed. labels holds the indices of the right labels of each row.
    """

    shape: tuple[int, int]
    file: str
    share: float
    logits: tuple[tuple[float, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    inputs: tuple[str, ...] = INPUTS


@dataclass(frozen=True)
class Kit:
    """A model's kit, checked."""

    folder: Path
    name: str
    ensemble: str
    version: str
    problem_type: str
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    judged: tuple[Batch, ...]
    timed: tuple[Batch, ...]
    samples_sha256: str

    @property
    def noun(self) -> str:
        """What the model is asked about: a reranker has one label and is asked about pairs."""
        alone = all(len(row) == 1 for batch in self.judged for row in batch.logits)
        return "pairs" if alone else "texts"

    def profile_of(self, shape: tuple[int, int]) -> int:
        """The index of the profile that takes a shape."""
        for index, profile in enumerate(self.profiles):
            if profile.min[1] <= shape[1] <= profile.max[1] and shape[0] <= profile.max[0]:
                return index
        raise KitError(f"{self.name}: no profile takes {shape[0]}x{shape[1]}; export the model again.")


def read_kit(folder: Path) -> Kit:
    """Read and check a kit.

    Raises:
        KitError: a file is missing, damaged, or written by another version of the exporter.
    """
    try:
        content = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise KitError(
                f"{folder.name}: the kit has schema {content['schema']}, this script reads {SCHEMA}; "
                "export the model again with the version of tritonflare that this script is from."
            )
        # Written for rerankers that read token types.
        inputs = tuple(map(str, content.get("inputs", INPUTS)))
        samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
        kit = Kit(
            folder=folder,
            name=content["name"],
            ensemble=content["ensemble"],
            version=content["version"],
            problem_type=content["problem_type"],
            profiles=tuple(
                Profile(_shape(each["min"]), _shape(each["opt"]), _shape(each["max"]), inputs)
                for each in content["profiles"]
            ),
            flags=tuple(content["flags"]),
            candidates=tuple(_candidate(folder, entry) for entry in content["candidates"]),
            judged=tuple(_batch(entry, inputs) for entry in samples["judged"]),
            timed=tuple(_batch(entry, inputs) for entry in samples["timed"]),
            samples_sha256=sha256(folder / "samples.json"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(f"{folder.name}: the kit cannot be read ({error}); export the model again.") from error
    _check_files(kit)
    return kit


def sha256(file: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _candidate(folder: Path, entry: dict[str, object]) -> Candidate:
    limits = entry["limits"]
    if not isinstance(limits, dict):
        raise TypeError("limits is not an object")
    return Candidate(
        precision=str(entry["precision"]),
        encoder=str(entry["encoder"]),
        onnx_sha256=str(entry["onnx_sha256"]),
        limits=Limits(*(float(limits[k]) for k in ("accuracy_drop", "agreement", "speedup"))),
        folder=folder / str(entry["precision"]),
    )


def _batch(entry: dict[str, object], inputs: tuple[str, ...]) -> Batch:
    logits, labels = entry.get("logits", []), entry.get("labels", [])
    if not (isinstance(logits, list) and isinstance(labels, list)):
        raise TypeError("logits or labels is not a list")
    return Batch(
        shape=_shape(entry["shape"]),
        file=str(entry["file"]),
        share=float(str(entry.get("share", 0))),
        logits=tuple(tuple(map(float, row)) for row in logits),
        labels=tuple(tuple(map(int, row)) for row in labels),
        inputs=inputs,
    )


def _shape(value: object) -> tuple[int, int]:
    if not isinstance(value, list):
        raise TypeError("a shape is not a list")
    batch, tokens = map(int, value)
    return batch, tokens


def _check_files(kit: Kit) -> None:
    if not kit.candidates or kit.candidates[0].precision != "fp16" or not kit.judged or not kit.timed:
        raise KitError(f"{kit.name}: the kit has no FP16 candidate or no samples; export the model again.")
    names = (kit.ensemble, *(candidate.encoder for candidate in kit.candidates))
    if any("/" in name or name.startswith(".") or not name for name in names):
        raise KitError(f"{kit.name}: the kit names a folder outside the model repository.")
    for candidate in kit.candidates:
        _check_candidate(kit, candidate)


def _check_candidate(kit: Kit, candidate: Candidate) -> None:
    for name in ("encoder.config.pbtxt", "ensemble.config.pbtxt"):
        if not (candidate.folder / name).is_file():
            raise KitError(f"{kit.name}: {candidate.precision}/{name} is missing; export the model again.")
    onnx = candidate.folder / "model.onnx"
    if not onnx.is_file() or sha256(onnx) != candidate.onnx_sha256:
        raise KitError(
            f"{kit.name}: {candidate.precision}/model.onnx is not the file that was exported; "
            "export the model again."
        )

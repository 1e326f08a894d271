"""The plan kit: all that docker/triton/build_plans.py needs to build, judge and install a plan.

A folder per model (schema 1, described in docker/triton/plans/kit.py, which reads it).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.checkpoint import sha256
from export.errors import ExportError
from export.evaluation.gate import DEFAULT_LIMITS, GateLimits
from export.rows import types_of
from export.spec import ENCODER_INPUTS, TYPE_IDS
from export.tensorrt.profiles import Profile, profiles

SCHEMA = 1
# How much faster than FP16 a plan must be; a little above one for INT8, because two timings of
# the same plan differ by a few per cent.
SPEEDUP = {"fp16": 1.0, "int8": 1.03}


@dataclass(frozen=True)
class PlanCandidate:
    """An ONNX file that may become the served plan.

    encoder is the model folder's name. write_configs writes into the folder it is given what
    goes with the plan: encoder.config.pbtxt and warmup/ for the model folder, and
    ensemble.config.pbtxt, whose second step is that encoder.
    """

    precision: str
    onnx: Path
    encoder: str
    write_configs: Callable[[Path], None]


@dataclass(frozen=True)
class Samples:
    """Evaluation sentences: token ids, FP32 logits [N, labels], and right labels where known.

    labels holds, for each sentence, the indices of its labels; empty if they are unknown.
    """

    rows: Sequence[Sequence[int]]
    logits: npt.NDArray[np.float32]
    labels: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class KitModel:
    """The model that a kit is for; fallback_config is its ensemble's config.pbtxt as published."""

    name: str
    ensemble: str
    problem_type: str
    max_tokens: int
    fallback_config: str
    version: str = "1"
    pad_id: int = 0
    flags: tuple[str, ...] = ()
    limits: Mapping[str, GateLimits] = field(default_factory=lambda: DEFAULT_LIMITS)
    inputs: tuple[str, ...] = ENCODER_INPUTS


def plan_limits(precision: str, limits: Mapping[str, GateLimits] = DEFAULT_LIMITS) -> dict[str, float]:
    """The gate of a plan, as the builder reads it; accuracy_drop is a fraction (0.002 = 0.2 points)."""
    return {
        "accuracy_drop": limits[precision].accuracy_drop / 100,
        "agreement": limits[precision].agreement,
        "speedup": SPEEDUP[precision],
    }


def write_kit(folder: Path, model: KitModel, candidates: Sequence[PlanCandidate], samples: Samples) -> None:
    """Write the kit of a model, in place of the one that is there.

    Args:
        folder: the kit's own folder, ``…/tensorrt``; what is in it is removed.
        model: names, limits and configurations.
        candidates: FP16 first, INT8 after it if there is one.
        samples: sentences that the plans are judged on.

    Raises:
        ExportError: there is no FP16 candidate, or the samples do not fit together.
    """
    _check(model, candidates, samples)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    (part / "samples").mkdir(parents=True)
    (part / "fallback.config.pbtxt").write_text(model.fallback_config, encoding="utf-8")
    for candidate in candidates:
        _write_candidate(part, candidate)
    shapes = profiles(model.max_tokens)
    _write_json(part / "samples.json", _write_samples(part / "samples", shapes, samples, model))
    content = {
        "schema": SCHEMA,
        "name": model.name,
        "ensemble": model.ensemble,
        "version": model.version,
        "problem_type": model.problem_type,
        "profiles": [asdict(profile) for profile in shapes],
        "flags": list(model.flags),
        "candidates": [
            {
                "precision": c.precision,
                "encoder": c.encoder,
                "onnx_sha256": sha256(part / c.precision / "model.onnx"),
                "limits": plan_limits(c.precision, model.limits),
            }
            for c in candidates
        ],
    }
    if model.inputs != ENCODER_INPUTS:
        content["inputs"] = list(model.inputs)
    # Last, and by a rename: the builder waits for kit.json.
    _write_json(part / "kit.json", content)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _check(model: KitModel, candidates: Sequence[PlanCandidate], samples: Samples) -> None:
    names = [c.precision for c in candidates]
    if names not in (["fp16"], ["fp16", "int8"]):
        raise ExportError(
            f"a kit holds fp16, or fp16 and int8, in this order; not {', '.join(names) or 'nothing'}."
        )
    if not len(samples.rows) or len(samples.rows) != len(samples.logits):
        raise ExportError(f"{len(samples.rows)} sentences and {len(samples.logits)} rows of logits.")
    if len(samples.labels) not in (0, len(samples.rows)):
        raise ExportError(f"{len(samples.rows)} sentences and {len(samples.labels)} labels.")
    lengths = [len(row) for row in samples.rows]
    if not 0 < min(lengths) <= max(lengths) <= model.max_tokens:
        raise ExportError(f"sentences of {min(lengths)} to {max(lengths)} tokens, limit {model.max_tokens}.")


def _write_candidate(part: Path, candidate: PlanCandidate) -> None:
    target = part / candidate.precision
    target.mkdir()
    try:
        os.link(candidate.onnx, target / "model.onnx")
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(candidate.onnx, target / "model.onnx")
    candidate.write_configs(target)


def _write_samples(
    folder: Path, shapes: Sequence[Profile], samples: Samples, model: KitModel
) -> dict[str, Any]:
    """Batches to be judged on, every sentence once, and one batch per length to be timed on."""
    judged, timed = [], []
    start = 0
    for profile in shapes:
        length = profile.max[1]
        rows = [i for i, row in enumerate(samples.rows) if start < len(row) <= length]
        start = length
        if not rows:
            continue
        for at in range(0, len(rows), profile.max[0]):
            chunk = rows[at : at + profile.max[0]]
            entry = _write_batch(
                folder, f"{length}_{at // profile.max[0]}", length, chunk, samples.rows, model
            )
            entry["logits"] = [[float(value) for value in samples.logits[i]] for i in chunk]
            entry["labels"] = [list(samples.labels[i]) for i in chunk] if len(samples.labels) else []
            judged.append(entry)
        # Real sentences, again and again until the batch is full.
        full = [rows[i % len(rows)] for i in range(profile.opt[0])]
        entry = _write_batch(folder, f"timed_{length}", length, full, samples.rows, model)
        timed.append({**entry, "share": len(rows) / len(samples.rows)})
    return {"judged": judged, "timed": timed}


def _write_batch(
    folder: Path,
    name: str,
    length: int,
    chosen: Sequence[int],
    rows: Sequence[Sequence[int]],
    model: KitModel,
) -> dict[str, Any]:
    """Raw little-endian INT64 [rows, length], as trtexec's --loadInputs reads it."""
    ids = np.full((len(chosen), length), model.pad_id, "<i8")
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for line, index in enumerate(chosen):
        row = rows[index]
        ids[line, : len(row)] = row
        mask[line, : len(row)] = 1
        types[line, : len(row)] = types_of(row)
    tensors = {"input_ids": ids, "attention_mask": mask, TYPE_IDS: types}
    for tensor in model.inputs:
        tensors[tensor].tofile(folder / f"{name}.{tensor}.bin")
    return {"shape": list(ids.shape), "file": name}


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

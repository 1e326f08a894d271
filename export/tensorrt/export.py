"""What an export adds for ``--target tensorrt``: the plan kit beside the published fallback.

A plan loads only with the TensorRT and the GPU that built it, so it is built where it is served
(docker/triton/build_plans.py). Until then, and wherever that fails, ONNX Runtime serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from export.artefact import Artefact
from export.evaluation.runner import run_grouped
from export.files import write_atomically
from export.plan import ExportPlan
from export.repository.write import write_plan_configs
from export.source import Source
from export.spec import ENCODER_INPUTS, RERANK, TYPE_IDS, ServedModel
from export.tensorrt.check import check_graph
from export.tensorrt.kit import KitModel, PlanCandidate, Samples, write_kit
from export.tensorrt.quantise import quantise

KIT = "tensorrt"
SAMPLES = 1024


def write_plan_graphs(plan: ExportPlan, source: Source, folder: Path) -> dict[str, Path]:
    """Write what plans are built from, before anything is published.

    Args:
        plan: the export; INT8 is written if it is the precision that was asked for.
        source: what is exported.
        folder: the artefacts' folder.

    Returns:
        Precision → ONNX file, FP16 first.

    Raises:
        ExportError: the graph is not one that TensorRT can read, or the extra ``tensorrt`` is missing.
    """
    labels = len(source.checkpoint.labels)
    graphs = {"fp16": source.route.fp16_graph("plain")}
    check_graph(graphs["fp16"], labels, _inputs(source))
    if plan.served == "int8":
        graphs["int8"] = quantise(
            source.route.fp32_graph("plain"), source.rows, labels, inputs=_inputs(source)
        )
    files = {precision: folder / f"{precision}-plain" / "model.onnx" for precision in graphs}
    for precision, file in files.items():
        write_atomically(file, graphs[precision].SerializeToString(deterministic=True))
    return files


def write_plan_kit(
    plan: ExportPlan, source: Source, published: ServedModel, files: Mapping[str, Path], folder: Path
) -> Path:
    """Write the kit of a model that was just published for ONNX Runtime.

    Args:
        plan: the export.
        source: what is exported.
        published: the fallback, with its version.
        files: what `write_plan_graphs` wrote.
        folder: the artefacts' folder, which holds the FP32 graph that plans are judged by.

    Returns:
        The kit's folder.
    """
    kit = KitModel(
        name=published.name,
        ensemble=published.ensemble,
        problem_type=published.problem_type,
        max_tokens=published.max_tokens,
        fallback_config=(plan.repository / published.ensemble / "config.pbtxt").read_text(encoding="utf-8"),
        version=str(published.version),
        pad_id=published.pad_id,
        limits=plan.limits,
        inputs=_inputs(source),
    )
    candidates = [_candidate(published, precision, file) for precision, file in files.items()]
    write_kit(folder / KIT, kit, candidates, _samples(source, folder))
    return folder / KIT


def _inputs(source: Source) -> tuple[str, ...]:
    return (*ENCODER_INPUTS, TYPE_IDS) if source.checkpoint.token_types else ENCODER_INPUTS


def _candidate(published: ServedModel, precision: str, file: Path) -> PlanCandidate:
    served = replace(published, target="tensorrt", precision=precision)
    return PlanCandidate(precision, file, served.encoder, lambda target: write_plan_configs(served, target))


def _samples(source: Source, folder: Path) -> Samples:
    step = -(-len(source.example_rows) // SAMPLES)
    rows = source.example_rows[::step]
    # Relevance of a text is no label: a plan keeps the scores of a reranker, not a decision about them.
    targets = None if source.checkpoint.task == RERANK else source.examples.targets
    labels = [] if targets is None else [np.flatnonzero(line).tolist() for line in targets[::step]]
    fp32 = Artefact(folder / "fp32" / "model.onnx", len(source.checkpoint.labels))
    return Samples(rows, run_grouped(fp32, rows, lambda done, total: None), labels)

"""Whether TensorRT, where it is installed, builds a plan of the bundled checkpoint, and how long it takes."""

from __future__ import annotations

import importlib
import importlib.util
import time
from pathlib import Path
from typing import Any

from export.plan import ExportPlan
from export.source import read_source
from export.tensorrt.export import write_plan_graphs
from export.tensorrt.profiles import profiles
from tools.gpu_check.job import CheckFailed, CheckSkipped, Job
from tritonflare.paths import CHECKPOINT

_LENGTHS = (32, 512)
"""Two of the exporter's profiles: each is tuned for minutes on some GPUs."""


def build(job: Job) -> str:
    """Build an FP16 plan with the module ``tensorrt``; its answers are not compared here."""
    if job.settings.device != "cuda":
        raise CheckSkipped("A TensorRT plan is built on a GPU only.")
    if importlib.util.find_spec("tensorrt") is None:
        raise CheckSkipped("The module tensorrt is not installed.")
    trt = importlib.import_module("tensorrt")
    work = job.settings.work
    plan = ExportPlan(CHECKPOINT, work / "plans", work / "plan_artefacts", target="tensorrt", timing=None)
    source = read_source(plan, work)
    graph = write_plan_graphs(plan, source, work / "plan_artefacts")["fp16"]
    began = time.monotonic()
    content = build_plan(trt, graph, source.checkpoint.max_tokens)
    seconds = time.monotonic() - began
    job.figures(
        tensorrt=str(trt.__version__), seconds=round(seconds, 1), megabytes=round(len(content) / 1e6, 1)
    )
    return f"TensorRT {trt.__version__} built an FP16 plan in {seconds:.0f} s; its answers were not compared."


def build_plan(trt: Any, graph: Path, max_tokens: int) -> bytes:
    """The serialised plan of an ONNX file, with those of the exporter's profiles that are of _LENGTHS.

    Raises:
        CheckFailed: TensorRT cannot read the graph, or builds nothing of it.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        raise CheckFailed("TensorRT cannot read the graph.")
    config = builder.create_builder_config()
    # Releases that know only strongly typed networks have no such flag; the graph's own types then hold.
    if hasattr(trt, "BuilderFlag") and hasattr(trt.BuilderFlag, "FP16"):
        config.set_flag(trt.BuilderFlag.FP16)
    for each in profiles(max_tokens):
        if each.opt[1] in _LENGTHS:
            profile = builder.create_optimization_profile()
            for name in ("input_ids", "attention_mask"):
                profile.set_shape(name, each.min, each.opt, each.max)
            config.add_optimization_profile(profile)
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise CheckFailed("TensorRT built no plan.")
    return bytes(content)

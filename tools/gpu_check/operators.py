"""Which execution provider runs each node of the served graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.gpu_check.job import CheckFailed, Job
from tools.gpu_check.masks import compare_masks
from tools.gpu_check.models import PRECISIONS, served_models
from tools.gpu_check.session import DeviceSession

_TEXTS, _WIDTH = 8, 64
_SHAPE = _TEXTS, _WIDTH
_GROUPS = (64, 64), (32, 512)
"""Texts and tokens of groups that the server forms."""
_INT64 = 8
_HEAVY = ("MatMul", "Gemm", "Attention", "Gelu", "Normalization")
"""How the operators end that are the model's arithmetic."""


@dataclass(frozen=True)
class Node:
    """A node of a graph: its operator, the provider that ran it, and the bytes that it put out."""

    op: str
    provider: str
    output_bytes: int


def check(job: Job) -> str:
    """Run each graph once with ONNX Runtime's profiler; what the model computes must be the device's work.

    ONNX Runtime gives an operator that a provider lacks to the CPU without a word. That may be some
    arithmetic of shapes, which copies a few bytes, and nothing else.
    """
    ids = np.full(_SHAPE, 100, np.int64)
    mask = np.ones(_SHAPE, np.int64)
    failed = []
    for precision in PRECISIONS:
        job.steps.step(f"profiling {precision}")
        session = DeviceSession(served_models(job.settings)[precision].graph, job.settings.device)
        prefix = job.settings.work / f"profile_{precision}"
        nodes = nodes_of(session.profile(ids, mask, prefix))
        if not nodes:
            raise CheckFailed("ONNX Runtime's profile names no node.")
        for provider, operators in by_provider(nodes).items():
            job.row(
                precision=precision, provider=provider, nodes=sum(operators.values()), operators=operators
            )
        elsewhere = heavy_elsewhere(nodes, session.provider, ids.size)
        failed += [f"{precision.upper()}: {each.op} by {each.provider}" for each in elsewhere]
    _measure_masks(job)
    if failed:
        shown = "; ".join(f"{name}, {count} times" for name, count in Counter(failed).items())
        raise CheckFailed(f"Not all of the model ran on the device. {shown}.")
    total = sum(row["nodes"] for row in job.rows)
    other = sum(row["nodes"] for row in job.rows if row["provider"] != session.provider)
    rest = "; the others are small" if other else ""
    return f"{total - other} of {total} nodes ran by {session.provider}{rest}."


def _measure_masks(job: Job) -> None:
    """Nothing is judged by it: it tells whether another graph would be faster on this GPU."""
    settings = job.settings
    graph = served_models(settings)[PRECISIONS[0]].graph
    for texts, width in _GROUPS if settings.device == "cuda" else (_SHAPE,):
        job.steps.step(f"comparing masks with {texts} texts of {width} tokens")
        found = compare_masks(graph, settings.device, settings.work, texts, width)
        job.figures(
            **{
                f"lengths_instead_of_a_mask_{texts}x{width}": float(f"{found['lengths_speed']:.3g}"),
                f"logits_moved_by_lengths_{texts}x{width}": float(f"{found['largest']:.1e}"),
            }
        )


def nodes_of(events: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The nodes among the events of a profile, one for each time that a node ran."""
    return [
        Node(each["args"]["op_name"], each["args"]["provider"], int(each["args"].get("output_size", 0)))
        for each in events
        if each.get("cat") == "Node" and each.get("args", {}).get("provider")
    ]


def by_provider(nodes: Sequence[Node]) -> dict[str, dict[str, int]]:
    """How many nodes of each operator each provider ran, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for node in nodes:
        counts.setdefault(node.provider, Counter())[node.op] += 1
    return {provider: dict(operators.most_common()) for provider, operators in sorted(counts.items())}


def heavy_elsewhere(nodes: Sequence[Node], provider: str, tokens: int) -> list[Node]:
    """Nodes that another provider ran, though they are the model's arithmetic, or large.

    Args:
        nodes: of one run.
        provider: the device's.
        tokens: of the run, padding included; a node is large if it puts out more than an INT64 for each.
    """
    return [
        node
        for node in nodes
        if node.provider != provider and (node.op.endswith(_HEAVY) or node.output_bytes > _INT64 * tokens)
    ]

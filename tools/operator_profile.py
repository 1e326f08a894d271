"""Where an ONNX graph's time goes on a CPU, by operator, on one thread; prints Markdown.

    .venv/bin/python -m tools.operator_profile .cache/artefacts/*/int8-token/model.onnx

A node's time is the median of its runs and contains what the profiler adds, about 2 µs.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

# Read at the import of ONNX Runtime; otherwise it sends events to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

LENGTHS = (8, 27, 128)
RUNS = 40
_TOKEN = 3


def profile(model: Path, tokens: int, runs: int = RUNS) -> dict[str, tuple[float, int]]:
    """Operator → microseconds of all its nodes in one run over one text, and the number of nodes.

    Args:
        model: a graph of input_ids and attention_mask, and perhaps token_type_ids.
        tokens: length of the text.
        runs: how often it runs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        inputs = {each.name: np.zeros((1, tokens), np.int64) for each in session.get_inputs()}
        inputs["input_ids"] += _TOKEN
        inputs["attention_mask"] += 1
        for _ in range(runs):
            session.run(["logits"], inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["name"]].append(event["dur"])
    total: Counter[str] = Counter()
    for (operator, _), durations in times.items():
        total[operator] += statistics.median(durations)  # type: ignore[assignment]
    nodes = Counter(operator for operator, _ in times)
    return {operator: (float(spent), nodes[operator]) for operator, spent in total.most_common()}


def as_table(profiles: dict[int, dict[str, tuple[float, int]]]) -> str:
    """A row an operator, the slowest at the last length first; ``profiles`` by tokens."""
    last = list(profiles.values())[-1]
    lines = [
        "| operator | nodes |" + "".join(f" {tokens} tokens, µs |" for tokens in profiles),
        "|---|" + "---|" * (1 + len(profiles)),
    ]
    for operator, (_, nodes) in last.items():
        spent = "".join(f" {found.get(operator, (0.0, 0))[0]:.0f} |" for found in profiles.values())
        lines.append(f"| `{operator}` | {nodes} |{spent}")
    sums = "".join(f" {sum(spent for spent, _ in found.values()):.0f} |" for found in profiles.values())
    lines.append(f"| all | {sum(nodes for _, nodes in last.values())} |{sums}")
    return "\n".join(lines)


def main(models: Sequence[str]) -> int:
    """Print a table for each file."""
    if not models:
        sys.stderr.write("usage: python -m tools.operator_profile MODEL.onnx …\n")
        return 2
    for model in models:
        table = as_table({tokens: profile(Path(model), tokens) for tokens in LENGTHS})
        sys.stdout.write(f"{model}\n\n{table}\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

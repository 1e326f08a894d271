"""Encoder step on the CPU: input_ids, attention_mask INT64 [n, S] → logits FP32 [n, labels].

Runs ONNX Runtime in Triton's python backend. Requests of one batch may differ in length
(``allow_ragged_batch``): all their texts are sorted by length and run in groups that waste
little padding, because on a CPU one padded batch of mixed lengths is slower than the same
texts one by one.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

GROUP = 8
WASTE = 0.15


def length_groups(lengths: list[int]) -> list[list[int]]:
    """Indices in groups of at most GROUP texts whose padding is at most WASTE of what is computed."""
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        current = groups[-1] if groups else []
        # Longest first: the first text of a group sets its width.
        width = lengths[current[0]] if current else 0
        area = width * (len(current) + 1)
        if not current or len(current) == GROUP or area - tokens - lengths[index] > WASTE * area:
            groups.append([index])
            tokens = lengths[index]
        else:
            current.append(index)
            tokens += lengths[index]
    return groups


class TritonPythonModel:
    """Triton's python backend calls ``initialize`` once per instance and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph; the host's cores are shared out between the instances."""
        config = json.loads(args["model_config"])
        self.labels = config["output"][0]["dims"][0]
        instances = sum(group["count"] for group in config["instance_group"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // instances)
        options.inter_op_num_threads = 1
        model = str(Path(__file__).with_name("model.onnx"))
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all texts of all requests in groups of like length; answer each request on its own."""
        # Only Triton has this module, and the export imports length_groups from this file.
        import triton_python_backend_utils as pb_utils

        rows: list[Any] = []
        sizes = []
        for request in requests:
            ids = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy()
            mask = pb_utils.get_input_tensor_by_name(request, "attention_mask").as_numpy()
            rows += [row[: kept.sum()] for row, kept in zip(ids, mask)]  # noqa: B905 (Triton's own shapes)
            sizes.append(len(ids))
        try:
            logits = self._run(rows)
        except Exception as problem:
            # Uncaught, it would send its traceback, with the paths of this machine, to the client.
            error = pb_utils.TritonError(f"inference failed: {type(problem).__name__}")
            return [pb_utils.InferenceResponse(error=error) for _ in requests]
        responses = []
        start = 0
        for size in sizes:
            part = np.ascontiguousarray(logits[start : start + size])
            responses.append(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("logits", part)]))
            start += size
        return responses

    def _run(self, rows: list[Any]) -> Any:
        logits = np.empty((len(rows), self.labels), np.float32)
        for group in length_groups([len(row) for row in rows]):
            width = len(rows[group[0]])
            ids = np.zeros((len(group), width), np.int64)
            mask = np.zeros((len(group), width), np.int64)
            for line, index in enumerate(group):
                ids[line, : len(rows[index])] = rows[index]
                mask[line, : len(rows[index])] = 1
            (out,) = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
            logits[group] = out
        return logits

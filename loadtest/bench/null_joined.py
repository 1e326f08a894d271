"""Step that tokenizes as the real one does, and answers constant logits at once.

TEXT BYTES [n, 1], of a reranker QUERY BYTES [n, 1] too → logits FP32 [n, labels], token_count INT32 [n, 1].

The bench serves it beside a model of the layout ``joined`` to see what everything but the model costs. Runs
inside Triton's python backend, in a folder with that model's own programs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .text_step import TextStep  # type: ignore[import-not-found]


class TritonPythonModel(TextStep):  # type: ignore[misc]
    """Triton's python backend calls ``initialize`` once per instance and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer, and learn how many labels the model has that this one stands for."""
        self.prepare(args, Path(__file__).parent)
        self.labels = next(each["dims"][0] for each in self.config["output"] if each["name"] == "logits")

    def answer(self, rows: list[tuple[list[int], list[int], int]], sender: Callable[[], Any]) -> Any:
        """Zeros for every text, and how many tokens it has."""
        logits = np.zeros((len(rows), self.labels), np.float32)
        counts = np.array([[count] for _, _, count in rows], np.int32)
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor("logits", logits), pb_utils.Tensor("token_count", counts)]
        )

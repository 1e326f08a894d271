"""Encoder step that answers constant logits at once: input_ids INT64 [n, S] → logits FP32 [n, labels].

The bench serves it behind the real tokenizer to see what everything but the model costs. Runs
inside Triton's python backend and imports nothing of this project.
"""

import json
from typing import Any

import numpy as np


class TritonPythonModel:
    """Triton's python backend calls ``initialize`` once per instance and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Learn how many labels the model has that this one stands for."""
        self.labels = json.loads(args["model_config"])["output"][0]["dims"][0]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Zeros for every text of every request."""
        import triton_python_backend_utils as pb_utils  # only Triton has it

        responses = []
        for request in requests:
            texts = pb_utils.get_input_tensor_by_name(request, "input_ids").shape()[0]
            logits = pb_utils.Tensor("logits", np.zeros((texts, self.labels), np.float32))
            responses.append(pb_utils.InferenceResponse(output_tensors=[logits]))
        return responses

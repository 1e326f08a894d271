"""Encoder step, on the CPU or a GPU: input_ids, attention_mask INT64 [n, S] → logits FP32 [n, labels].

A model of pairs may read token_type_ids INT64 [n, S] as well; its configuration then names them.
"""

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from .encoder_threads import EncoderThreads
from .text_queue import Call


class TritonPythonModel:
    """Triton's python backend calls ``initialize`` once per instance and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph and start the threads."""
        config = json.loads(args["model_config"])
        self.labels = config["output"][0]["dims"][0]
        self.token_types = any(each["name"] == "token_type_ids" for each in config.get("input", ()))
        self.threads = EncoderThreads(pb_utils, args, config, Path(__file__).with_name("model.onnx"))

    def execute(self, requests: list[Any]) -> None:
        """Queue all texts of all requests."""
        tensor = pb_utils.get_input_tensor_by_name
        calls = []
        for request in requests:
            ids = tensor(request, "input_ids").as_numpy()
            lengths = tensor(request, "attention_mask").as_numpy().sum(axis=1).tolist()
            types = None
            if self.token_types:
                types = _rows(tensor(request, "token_type_ids").as_numpy(), lengths)
            calls.append(Call(request.get_response_sender(), _rows(ids, lengths), self.labels, types))
        self.threads.add(calls)

    def finalize(self) -> None:
        """End the threads."""
        self.threads.close()


def _rows(values: Any, lengths: list[int]) -> list[Any]:
    """The tokens of each text: copies, as Triton takes the memory back when ``execute`` returns."""
    return [row[:length].copy() for row, length in zip(values, lengths)]  # noqa: B905 (one shape)

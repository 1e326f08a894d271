"""Tokenizer step: TEXT BYTES [n, 1] → input_ids, attention_mask INT64 [n, S], token_count INT32 [n, 1].

A reranker's takes QUERY BYTES [n, 1] as well. Where the configuration names token_type_ids INT64 [n, S]
among the outputs, the encoder reads them. Padding stays inside a request. Where the configuration names
length buckets, S is the smallest that holds the request's longest text, because a GPU's encoder merges
requests of one shape only.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .text_reader import Row
from .text_step import TextStep


class TritonPythonModel(TextStep):
    """Triton's python backend calls ``initialize`` once and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer."""
        self.prepare(args, Path(__file__).parent)
        buckets = self.config["parameters"].get("length_buckets", {"string_value": ""})["string_value"]
        self.buckets = [int(bucket) for bucket in buckets.split(",") if bucket]
        self.token_types = any(output["name"] == "token_type_ids" for output in self.config["output"])

    def answer(self, rows: list[Row], sender: Callable[[], Any]) -> Any:
        """Return the tensors of a request."""
        longest = max(len(ids) for ids, _, _ in rows)
        width = next((bucket for bucket in self.buckets if bucket >= longest), longest)
        shape = (len(rows), width)
        tensors: dict[str, Any] = {
            "input_ids": np.full(shape, self.reader.pad_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_count": np.array([[count] for _, _, count in rows], np.int32),
        }
        if self.token_types:
            tensors["token_type_ids"] = np.zeros(shape, np.int64)
        for line, (ids, types, _) in enumerate(rows):
            tensors["input_ids"][line, : len(ids)] = ids
            tensors["attention_mask"][line, : len(ids)] = 1
            if self.token_types:
                tensors["token_type_ids"][line, : len(ids)] = types
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor(name, value) for name, value in tensors.items()]
        )

"""Tokenizer and encoder as one step on the CPU: TEXT BYTES [n, 1] → logits FP32 [n, labels].

The other output is token_count INT32 [n, 1]. A reranker's takes QUERY BYTES [n, 1] as well. A call is handed
to this process and back once, where two steps hand it over twice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .encoder_threads import EncoderThreads
from .text_queue import Call
from .text_reader import Row
from .text_step import TextStep


class TritonPythonModel(TextStep):
    """Triton's python backend calls ``initialize`` once and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and the graph, and start the threads."""
        folder = Path(__file__).parent
        self.prepare(args, folder)
        self.labels = next(each["dims"][0] for each in self.config["output"] if each["name"] == "logits")
        self.threads = EncoderThreads(pb_utils, args, self.config, folder / "model.onnx")

    def answer(self, rows: list[Row], sender: Callable[[], Any]) -> None:
        """Queue the texts of a request; the thread that ends it sends the response."""
        ids = [ids for ids, _, _ in rows]
        types = [types for _, types, _ in rows] if self.threads.token_types else None
        counts = np.array([[count] for _, _, count in rows], np.int32)
        self.threads.add([Call(sender(), ids, self.labels, types, counts)])

    def finalize(self) -> None:
        """End all threads."""
        super().finalize()
        self.threads.close()

"""Tokenizer step: TEXT BYTES [n, 1] → input_ids, attention_mask INT64 [n, S], token_count INT32 [n, 1].

Runs in Triton's python backend with ``tokenizer.json`` beside this file. Every text is
tokenized by itself, so no text can change another's tokens; padding stays inside a request.
Where the configuration names length buckets, S is the smallest that holds the request's
longest text, because a GPU's encoder merges requests of one shape only.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    """Triton's python backend calls ``initialize`` once and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and switch off whatever padding its file asks for."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.pad_id = int(parameters["pad_id"]["string_value"])
        buckets = parameters.get("length_buckets", {"string_value": ""})["string_value"]
        self.buckets = [int(bucket) for bucket in buckets.split(",") if bucket]
        self.tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(int(parameters["max_tokens"]["string_value"]))
        self.special = self.tokenizer.num_special_tokens_to_add(is_pair=False)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Tokenize the texts of all requests together; answer each request on its own."""
        responses = []
        for request in requests:
            try:
                responses.append(self._answer(request))
            except UnicodeDecodeError:
                error = pb_utils.TritonError("TEXT is not UTF-8", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
            except Exception as problem:
                # Uncaught, it would fail the neighbours too and send its traceback to the client.
                error = pb_utils.TritonError(f"tokenization failed: {type(problem).__name__}")
                responses.append(pb_utils.InferenceResponse(error=error))
        return responses

    def _answer(self, request: Any) -> Any:
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().ravel()
        encodings = self.tokenizer.encode_batch_fast([text.decode("utf-8") for text in texts])
        longest = max(len(encoding) for encoding in encodings)
        width = next((bucket for bucket in self.buckets if bucket >= longest), longest)
        ids = np.full((len(encodings), width), self.pad_id, np.int64)
        mask = np.zeros((len(encodings), width), np.int64)
        counts = np.empty((len(encodings), 1), np.int32)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
            counts[row] = self._count(encoding)
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor("input_ids", ids),
                pb_utils.Tensor("attention_mask", mask),
                pb_utils.Tensor("token_count", counts),
            ]
        )

    def _count(self, encoding: Any) -> int:
        """Tokens before truncation; each overflowing piece carries special tokens of its own."""
        rest = sum(len(piece) - self.special for piece in encoding.overflowing)
        return len(encoding) + rest

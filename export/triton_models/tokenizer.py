"""Tokenizer step: TEXT BYTES [n, 1] → input_ids, attention_mask INT64 [n, S], token_count INT32 [n, 1].

Runs in Triton's python backend with ``tokenizer.json`` beside this file. Every text is
tokenized by itself, so no text can change another's tokens; padding stays inside a request.
Where the configuration names length buckets, S is the smallest that holds the request's
longest text, because a GPU's encoder merges requests of one shape only.

``token_count`` is the number of tokens before truncation. Of a text that was not read to its end it is
the number of those that were read: more than the limit, and no more than the text has. Requests with long
texts are answered by a thread of their own, one after the other, so that the others do not wait for them.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

from .long_texts import LongTextEncoder

LONG_BYTES = 16 * 1024
"""Requests with more text than this are long; the gateway never puts such a text into a call with others."""


class TritonPythonModel:
    """Triton's python backend calls ``initialize`` once and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and disable the padding that its file may ask for."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.pad_id = int(parameters["pad_id"]["string_value"])
        buckets = parameters.get("length_buckets", {"string_value": ""})["string_value"]
        self.buckets = [int(bucket) for bucket in buckets.split(",") if bucket]
        self.tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
        self.tokenizer.no_padding()
        # Of the file's own truncation only the side counts; the limit is the model's.
        side = (self.tokenizer.truncation or {"direction": "right"})["direction"]
        self.tokenizer.enable_truncation(int(parameters["max_tokens"]["string_value"]), direction=side)
        self.special = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        self.encoder = LongTextEncoder(self.tokenizer)
        self.long: SimpleQueue[tuple[Any, list[bytes]] | None] = SimpleQueue()
        """Response senders and texts of the long requests."""
        self.thread = Thread(target=self._answer_long_ones, daemon=True)
        self.thread.start()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own; None stands for those that the thread will answer."""
        return [self._begin(request) for request in requests]

    def finalize(self) -> None:
        """End the thread; Triton has waited for the answers before."""
        self.long.put(None)
        self.thread.join()

    def _answer_long_ones(self) -> None:
        while (request := self.long.get()) is not None:
            sender, texts = request
            response = None
            # The thread must survive every error; the caller then runs into its deadline.
            with suppress(BaseException):
                response = self._answer(texts, self.encoder.encode_batch)
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            # Not kept until the next one comes.
            del request, sender, texts, response

    def _begin(self, request: Any) -> Any:
        try:
            texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().ravel().tolist()
            if sum(map(len, texts)) <= LONG_BYTES:
                return self._answer(texts, self.tokenizer.encode_batch_fast)
            self.long.put((request.get_response_sender(), texts))
            return None
        except Exception as problem:
            return self._failed(problem)

    def _answer(self, texts: list[bytes], encode: Callable[[list[str]], list[Any]]) -> Any:
        try:
            return self._respond(encode([text.decode("utf-8") for text in texts]))
        except BaseException as problem:  # tokenizers' PanicException is no Exception
            # Uncaught, it would fail the neighbours too and send its traceback to the client.
            return self._failed(problem)

    def _failed(self, problem: BaseException) -> Any:
        if isinstance(problem, UnicodeDecodeError):
            error = pb_utils.TritonError("TEXT is not UTF-8", pb_utils.TritonError.INVALID_ARG)
        else:
            error = pb_utils.TritonError(f"tokenization failed: {type(problem).__name__}")
        return pb_utils.InferenceResponse(error=error)

    def _respond(self, encodings: list[Any]) -> Any:
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

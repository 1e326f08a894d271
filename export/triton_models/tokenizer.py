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


Row = tuple[list[int], list[int], int]
"""Token ids, their types (empty where the encoder reads none), and ``token_count``."""


class TritonPythonModel:
    """Triton's python backend calls ``initialize`` once and ``execute`` per batch."""

    INPUTS = "TEXT"
    """What an error message calls the inputs."""
    token_types = False
    """Whether the encoder reads token types."""

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
        self.prepare(int(parameters["max_tokens"]["string_value"]), side)
        self.long: SimpleQueue[tuple[Any, list[Any]] | None] = SimpleQueue()
        """Response senders and texts of the long requests."""
        self.thread = Thread(target=self._answer_long_ones, daemon=True)
        self.thread.start()

    def prepare(self, max_tokens: int, side: str) -> None:
        """Set the tokenizer to the model's limit and to the side on which long texts are cut."""
        self.tokenizer.enable_truncation(max_tokens, direction=side)
        self.special = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        self.encoder = LongTextEncoder(self.tokenizer)

    def read(self, request: Any) -> tuple[list[Any], int]:
        """The texts of a request, and how many bytes there are to tokenize."""
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().ravel().tolist()
        return texts, sum(map(len, texts))

    def encode(self, texts: list[Any], *, long: bool) -> list[Row]:
        """Tokenize UTF-8 texts; ``long`` ones one after the other, and only as far as the model reads."""
        encode_batch = self.encoder.encode_batch if long else self.tokenizer.encode_batch_fast
        encodings = encode_batch([text.decode("utf-8") for text in texts])
        return [(encoding.ids, [], self._count(encoding)) for encoding in encodings]

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
                response = self._answer(texts, long=True)
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            # Not kept until the next one comes.
            del request, sender, texts, response

    def _begin(self, request: Any) -> Any:
        try:
            texts, size = self.read(request)
            if size <= LONG_BYTES:
                return self._answer(texts, long=False)
            self.long.put((request.get_response_sender(), texts))
            return None
        except Exception as problem:
            return self._failed(problem)

    def _answer(self, texts: list[Any], *, long: bool) -> Any:
        try:
            return self._respond(self.encode(texts, long=long))
        except BaseException as problem:  # tokenizers' PanicException is no Exception
            # Uncaught, it would fail the neighbours too and send its traceback to the client.
            return self._failed(problem)

    def _failed(self, problem: BaseException) -> Any:
        if isinstance(problem, UnicodeDecodeError):
            error = pb_utils.TritonError(f"{self.INPUTS} is not UTF-8", pb_utils.TritonError.INVALID_ARG)
        else:
            error = pb_utils.TritonError(f"tokenization failed: {type(problem).__name__}")
        return pb_utils.InferenceResponse(error=error)

    def _respond(self, rows: list[Row]) -> Any:
        longest = max(len(ids) for ids, _, _ in rows)
        width = next((bucket for bucket in self.buckets if bucket >= longest), longest)
        shape = (len(rows), width)
        tensors: dict[str, Any] = {
            "input_ids": np.full(shape, self.pad_id, np.int64),
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

    def _count(self, encoding: Any) -> int:
        """Tokens before truncation; each overflowing piece carries special tokens of its own."""
        rest = sum(len(piece) - self.special for piece in encoding.overflowing)
        return len(encoding) + rest

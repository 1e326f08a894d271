"""What the steps that take texts share: reading requests, long ones on a thread of their own, and errors."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import triton_python_backend_utils as pb_utils

from .pair_reader import PairReader
from .text_reader import LONG_BYTES, Row, TextReader


class TextStep:
    """Reads requests, each on its own; a subclass answers what was tokenized.

    Requests with long texts are tokenized by a thread of their own, one after the other, so that the
    others do not wait for them.
    """

    def prepare(self, args: dict[str, str], folder: Path) -> None:
        """Load the tokenizer in the folder of the model's program, and start the thread for long texts."""
        self.config = json.loads(args["model_config"])
        pairs = any(each["name"] == "QUERY" for each in self.config["input"])
        kind = PairReader if pairs else TextReader
        self.reader: TextReader = kind(folder / "tokenizer.json", self.config["parameters"])
        self.long: SimpleQueue[tuple[Any, list[Any]] | None] = SimpleQueue()
        """Response senders and texts of the long requests."""
        self.thread = Thread(target=self._answer_long_ones, daemon=True)
        self.thread.start()

    def finalize(self) -> None:
        """End the thread; Triton has waited for the answers before."""
        self.long.put(None)
        self.thread.join()

    def answer(self, rows: list[Row], sender: Callable[[], Any]) -> Any:
        """Return the response, or None if what ``sender`` gives is used to send it later."""
        raise NotImplementedError

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own; None stands for those that are answered later."""
        return [self._begin(request) for request in requests]

    def _begin(self, request: Any) -> Any:
        try:
            columns = [
                pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel().tolist()
                for name in self.reader.inputs
            ]
            try:
                texts, size = self.reader.gather(columns, request.parameters())
            except ValueError:
                return self._refused("does not match the parameter windows")
            if not texts:
                return self._refused("has no rows")
            if size > LONG_BYTES:
                self.long.put((request.get_response_sender(), texts))
                return None
        except Exception as problem:
            return self._failed(problem)
        return self._tokenize(texts, request.get_response_sender, long=False)

    def _tokenize(self, texts: list[Any], sender: Callable[[], Any], *, long: bool) -> Any:
        try:
            return self.answer(self.reader.encode(texts, long=long), sender)
        except BaseException as problem:  # tokenizers' PanicException is no Exception
            # Uncaught, it would fail the neighbours too and send its traceback to the client.
            return self._failed(problem)

    def _failed(self, problem: BaseException) -> Any:
        if isinstance(problem, UnicodeDecodeError):
            return self._refused("is not UTF-8")
        error = pb_utils.TritonError(f"tokenization failed: {type(problem).__name__}")
        return pb_utils.InferenceResponse(error=error)

    def _refused(self, reason: str) -> Any:
        words = f"{self.reader.called} {reason}"
        error = pb_utils.TritonError(words, pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)

    def _answer_long_ones(self) -> None:
        while (request := self.long.get()) is not None:
            # The thread must survive every error; the caller then runs into its deadline.
            with suppress(BaseException):
                self._answer_long_one(*request)
            del request  # not kept until the next one comes

    def _answer_long_one(self, sender: Any, texts: list[Any]) -> None:
        response = self._tokenize(texts, lambda: sender, long=True)
        if response is not None:
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

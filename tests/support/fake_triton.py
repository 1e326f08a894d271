"""An in-process Triton with programmable faults: a grpc.aio servicer behind a real port."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.domain.catalogue import version_id

SST2 = "@cf/huggingface/distilbert-sst-2-int8"
RERANKER = "@cf/baai/bge-reranker-base"
TRACEBACK = (
    'Traceback (most recent call last):\n  File "/opt/secret/model.py", line 7, in execute\nKeyError: 1'
)

Fault = Callable[[Any, Any], Awaitable[None]]


@dataclass
class FakeEnsemble:
    """One ensemble: how it is described and what it answers."""

    name: str = "sst2"
    public_name: str | None = SST2
    labels: tuple[str, ...] = ("NEGATIVE", "POSITIVE")
    max_tokens: int = 512
    problem_type: str = "single_label_classification"
    logits: tuple[float, ...] = (-4.0, 4.5)
    platform: str = "ensemble"
    max_batch_size: int = 8
    task: str = "text-classification"
    overrides: dict[str, str] = field(default_factory=dict)
    logits_of: Callable[[list[bytes]], tuple[float, ...]] | None = None
    """The logits of what it reads of a text, given as its words; None for ``logits`` whatever it reads."""

    def parameters(self) -> dict[str, str]:
        given = {"some.other": "parameter"}
        if self.public_name is not None:
            given |= {
                "tritonflare.name": self.public_name,
                "tritonflare.task": self.task,
                "tritonflare.labels": json.dumps(self.labels),
                "tritonflare.max_tokens": str(self.max_tokens),
                "tritonflare.precision": "int8",
                "tritonflare.target": "cpu",
                "tritonflare.problem_type": self.problem_type,
                "tritonflare.checkpoint": "tests/none",
                "tritonflare.description": "A fake.",
                "tritonflare.created_at": "2026-11-22 00:00:00.000",
            }
        return given | self.overrides

    @property
    def figures(self) -> str:
        """Name of the file in which the exporter would keep its report for callers."""
        return f"figures-{version_id(self.parameters()).partition('-')[2]}.html"


def reranker(name: str = "reranker", max_tokens: int = 512, public_name: str = RERANKER) -> FakeEnsemble:
    """Return an ensemble that scores pairs; see `relevance`."""
    return FakeEnsemble(
        name=name,
        public_name=public_name,
        labels=("LABEL_0",),
        max_tokens=max_tokens,
        problem_type="multi_label_classification",
        logits=(0.0,),
        task="rerank",
    )


def relevance(query: bytes, text: bytes) -> float:
    """Return the logit of a pair: the words of the query that the text has, minus one."""
    return len(set(query.split()) & set(text.split())) - 1.0


def read_pairs(request: Any) -> list[tuple[bytes, bytes]]:
    """Decode the tensors QUERY and TEXT of a ModelInferRequest."""
    return list(zip(read_texts(request, "QUERY"), read_texts(request), strict=True))


def read_texts(request: Any, name: str = "TEXT") -> list[bytes]:
    """Decode a BYTES tensor of a ModelInferRequest."""
    place = [tensor.name for tensor in request.inputs].index(name)
    raw, texts, at = request.raw_input_contents[place], [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return texts


def read_rows(request: Any, max_tokens: int) -> list[tuple[list[bytes], int]]:
    """Return what is read of each row, as words, and its token count: texts, and windows of texts."""
    texts = read_texts(request)
    asked = request.parameters["windows"].string_param if "windows" in request.parameters else ""
    entries = json.loads(asked) if asked else [None] * len(texts)
    rows = []
    for text, entry in zip(texts, entries, strict=True):
        row, number, overlap, _ = entry or (0, 0, 0, 0)
        words = (texts[row] if entry else text).split()
        start = number * (max_tokens - 2 - overlap)
        rows.append((words[start : start + max_tokens - 2], len(words) - start + 2))
    return rows


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers RepositoryIndex, ModelConfig and ModelInfer; a token is a word plus two."""

    def __init__(self) -> None:
        self.ensembles = [FakeEnsemble()]
        self.infer_fault: Fault | None = None
        self.index_fault: Fault | None = None
        self.config_fault: Fault | None = None
        self.reshape: Callable[[Any], Any] = lambda response: response
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.running = 0
        self.cancelled = 0
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def texts(self) -> list[bytes]:
        """Every text it was asked about, canaries left out."""
        texts = [text for request in self.requests for text in read_texts(request)]
        return [text for text in texts if text != b"This is a canary."]

    async def appear(self) -> None:
        """Start listening, on the same port as before if there was one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def disappear(self) -> None:
        """Stop listening and drop every connection at once."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        self._remember(context)
        if self.index_fault is not None:
            await self.index_fault(request, context)
        answer = service_pb2.RepositoryIndexResponse()
        for ensemble in self.ensembles:
            answer.models.add(name=ensemble.name, version="1", state="READY")
        return answer

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        self._remember(context)
        if self.config_fault is not None:
            await self.config_fault(request, context)
        ensemble = await self._find(request.name, context)
        answer = service_pb2.ModelConfigResponse()
        answer.config.name, answer.config.platform = ensemble.name, ensemble.platform
        answer.config.max_batch_size = ensemble.max_batch_size
        for key, value in ensemble.parameters().items():
            answer.config.parameters[key].string_value = value
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        self._remember(context)
        self.requests.append(request)
        self.running += 1
        try:
            if self.infer_fault is not None:
                await self.infer_fault(request, context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        ensemble = await self._find(request.model_name, context)
        if len(read_texts(request)) > max(1, ensemble.max_batch_size):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the batch is too large")
        return self.reshape(self._scores(request, ensemble))

    def _scores(self, request: Any, ensemble: FakeEnsemble) -> Any:
        texts = read_texts(request)
        rows = read_rows(request, ensemble.max_tokens)
        logits_of = ensemble.logits_of or (lambda words: ensemble.logits)
        logits = [value for words, _ in rows for value in logits_of(words)]
        counts = [count for _, count in rows]
        if ensemble.task == "rerank":
            pairs = read_pairs(request)
            logits = [relevance(*pair) for pair in pairs]
            counts = [_pair_tokens(*pair, ensemble.max_tokens) for pair in pairs]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        # Not in the order of the request, to prove that outputs are found by name.
        answer.outputs.add(name="token_count", datatype="INT32", shape=[len(texts), 1])
        answer.outputs.add(name="logits", datatype="FP32", shape=[len(texts), len(ensemble.logits)])
        answer.raw_output_contents.append(struct.pack(f"<{len(counts)}i", *counts))
        answer.raw_output_contents.append(struct.pack(f"<{len(logits)}f", *logits))
        return answer

    async def _find(self, name: str, context: Any) -> FakeEnsemble:
        for ensemble in self.ensembles:
            if ensemble.name == name:
                return ensemble
        await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        raise AssertionError("abort raises")

    def _remember(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))

    def answer_logits(self, *logits: float) -> None:
        """Answer these logits from now on."""
        self.ensembles[0] = replace(self.ensembles[0], logits=logits)


def _pair_tokens(query: bytes, text: bytes, max_tokens: int) -> int:
    needed = len(query.split()) + 3
    return -1 if needed >= max_tokens else needed + len(text.split())


def fail(code: grpc.StatusCode, details: str = TRACEBACK) -> Fault:
    """Return a fault that ends every call with a gRPC status."""

    async def fault(request: Any, context: Any) -> None:
        await context.abort(code, details)

    return fault


def hold(release: asyncio.Event, *, canaries: bool = False) -> Fault:
    """Return a fault that keeps calls running until ``release``; canaries pass unless told otherwise."""

    async def fault(request: Any, context: Any) -> None:
        if canaries or read_texts(request) != [b"This is a canary."]:
            await release.wait()

    return fault

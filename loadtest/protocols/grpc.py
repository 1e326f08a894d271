"""The Open Inference Protocol over gRPC.

Calls wait in greenlets only after `grpc.experimental.gevent.init_gevent`, which holds for the whole process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from grpc.experimental.gevent import init_gevent
from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtest import inference
from loadtest.checks import OK, WRONG_REFUSAL, WRONG_SCORE, WRONG_SHAPE, References, Scores
from loadtest.options import LoadOptions
from loadtest.reference import IS_RERANKER, NoReferenceError, past_proxies
from loadtest.traffic import PlannedRequest, Refusal

PORT = 8001
_CONNECTIONS = 8
"""Of an open loop: a server limits the calls on one connection, and each is served by one of its workers."""
_OVERLOAD = frozenset({"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_NO_CODE = 0
Metadata = tuple[tuple[str, str], ...]
_Method: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"


class GrpcRequests:
    """Makes calls of ModelInfer to ``model``."""

    def __init__(self, model: str) -> None:
        self._model = model

    def single(self, kind: str, text: str) -> PlannedRequest:
        """One text."""
        return self._call(kind, [text])

    def several(self, texts: Sequence[str]) -> PlannedRequest:
        """Several texts in one tensor."""
        return self._call("several", texts)

    def invalid(self) -> Iterator[PlannedRequest]:
        """Calls without a valid text, output or model."""
        empty = self._request([""])
        yield _refused(empty, "INVALID_ARGUMENT", "element 0 of input 'TEXT' is empty")
        no_input = service_pb2.ModelInferRequest(model_name=self._model)
        yield _refused(no_input, "INVALID_ARGUMENT", "the only input must be 'TEXT'")
        other_input = service_pb2.ModelInferRequest(model_name=self._model)
        inference.add_texts(other_input, ["Good."], "text")
        yield _refused(other_input, "INVALID_ARGUMENT", "the only input must be 'TEXT'")
        numbers = self._request(["Good."])
        numbers.inputs[0].datatype = "INT32"
        yield _refused(numbers, "INVALID_ARGUMENT", "must have the datatype BYTES")
        shape = self._request(["Good."])
        shape.inputs[0].shape[:] = [2, 1]
        yield _refused(shape, "INVALID_ARGUMENT", "its shape")
        output = inference.infer_request(self._model, ["Good."], ["score"])
        yield _refused(output, "INVALID_ARGUMENT", "there is no output 'score'")
        unknown = inference.infer_request(f"{self._model}-unknown", ["Good."])
        yield _refused(unknown, "NOT_FOUND", "No such model")

    def _request(self, texts: Sequence[str]) -> Any:
        return inference.infer_request(self._model, texts, inference.OUTPUTS)

    def _call(self, kind: str, texts: Sequence[str]) -> PlannedRequest:
        body = self._request(texts).SerializeToString()
        return PlannedRequest(kind, inference.METHOD, body, tuple(texts))


def _refused(request: Any, status: str, message: str) -> PlannedRequest:
    refusal = Refusal(status, {_NO_CODE: message})
    return PlannedRequest("invalid", inference.METHOD, request.SerializeToString(), refusal=refusal)


class Connections:
    """Connections that calls use in turn."""

    def __init__(self, channels: Sequence[grpc.Channel]) -> None:
        methods: list[_Method] = [channel.unary_unary(inference.METHOD) for channel in channels]
        self._methods = itertools.cycle(methods)

    def send(self, body: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        """Send a serialized message; return that of the response.

        Raises:
            grpc.RpcError: the call had another status than OK.
        """
        return next(self._methods)(body, metadata=metadata, timeout=timeout_s)


class GrpcProtocol:
    """A ServingProtocol; see there."""

    request_type = "gRPC"

    def __init__(self, options: LoadOptions, host: str, token: str) -> None:
        init_gevent()
        self._options = options
        self._host = host
        self._metadata = (("authorization", f"Bearer {token}"), ("cf-account-id", options.account))
        self._labels: list[str] = []
        self.requests = GrpcRequests(options.model)

    @property
    def description(self) -> str:
        """The protocol and the address."""
        return f"gRPC, {address_of(self._options.grpc_host, self._host)[0]}"

    def prepare(self) -> None:
        """Ask for the model's labels, which answers do not name."""
        address, secure = address_of(self._options.grpc_host, self._host)
        if secure and self._options.insecure:
            raise NoReferenceError(
                "--insecure is for HTTP only: a gRPC client always verifies the certificate; "
                "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names a file of certificates to trust"
            )
        request = service_pb2.ModelConfigRequest(name=self._options.model)
        try:
            with self._channel() as channel:
                ask = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelConfig
                config = ask(request, metadata=self._metadata, timeout=self._options.timeout)
            if inference.is_reranker(config):
                raise NoReferenceError(IS_RERANKER)
            self._labels = inference.read_labels(config)
        except grpc.RpcError as exc:
            raise _no_reference("asked for its labels", address, exc) from exc
        except ValueError as exc:
            raise NoReferenceError("asked for its labels, the server answered none: ModelConfig") from exc

    def shared(self) -> dict[str, Any]:
        """The labels."""
        return {"labels": self._labels}

    def follow(self, shared: Mapping[str, Any]) -> None:
        """Take the labels."""
        self._labels = shared["labels"]

    def classify_sequentially(self, texts: Sequence[str]) -> dict[str, Scores]:
        """As in ServingProtocol."""
        found: dict[str, Scores] = {}
        with self._channel() as channel:
            connections = Connections([channel])
            for text in texts:
                body = self.requests.single("single", text).body
                try:
                    answer = connections.send(body, self._metadata, self._options.timeout)
                    (found[text],) = self._read(answer, 1)
                except grpc.RpcError as exc:
                    address, _ = address_of(self._options.grpc_host, self._host)
                    raise _no_reference("asked alone", address, exc) from exc
                except (ValueError, DecodeError) as exc:
                    raise NoReferenceError(
                        "asked alone, the server answered what is no text classification"
                    ) from exc
        return found

    def as_carried(self, scores: Scores) -> Scores:
        """Probabilities are FP32."""
        return inference.to_fp32(scores)

    def connect(self, session: Any, calls_at_once: int) -> Connections:
        """Connections of this user alone."""
        return Connections([self._channel() for _ in range(min(_CONNECTIONS, calls_at_once))])

    def ask(self, connection: Connections, call: PlannedRequest, references: References) -> tuple[str, int]:
        """As in ServingProtocol."""
        try:
            answer = connection.send(call.body, self._metadata, self._options.timeout)
        except grpc.RpcError as error:
            return _error_outcome(call, error), 0
        return self._outcome(call, answer, references), len(answer)

    def _outcome(self, call: PlannedRequest, answer: bytes, references: References) -> str:
        if call.refusal is not None:
            return WRONG_REFUSAL
        try:
            found = self._read(answer, len(call.texts))
        except (ValueError, DecodeError):
            return WRONG_SHAPE
        if all(references.agree(text, scores) for text, scores in zip(call.texts, found, strict=True)):
            return OK
        return WRONG_SCORE

    def _read(self, answer: bytes, texts: int) -> list[Scores]:
        response = service_pb2.ModelInferResponse.FromString(answer)
        return inference.read_scores(response, self._options.model, self._labels, texts)

    def _channel(self) -> grpc.Channel:
        address, secure = address_of(self._options.grpc_host, self._host)
        options = [
            ("grpc.use_local_subchannel_pool", 1),  # otherwise channels share their connection
            ("grpc.enable_http_proxy", 0 if past_proxies(f"//{address}") else 1),
        ]
        if secure:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
        return grpc.insecure_channel(address, options)


def address_of(grpc_host: str, host: str) -> tuple[str, bool]:
    """The address as ``host:port``, and whether it speaks TLS.

    Args:
        grpc_host: ``host:port``, ``host``, or either behind ``http://`` or ``https://``; if empty, the name
            in ``host``. PORT is the default port, and the scheme is that of ``host``.
        host: the URL of the HTTP API.

    Raises:
        NoReferenceError: it is none of that.
    """
    try:
        outer = urlsplit(host)
        given = grpc_host or _bracketed(outer.hostname or "")
        parts = urlsplit(given if "://" in given else f"{outer.scheme}://{given}")
        name, port = parts.hostname or "", PORT if parts.port is None else parts.port
        valid = bool(name) and port > 0 and parts.scheme in ("http", "https") and not parts.path.strip("/")
    except ValueError:
        valid = False
    if not valid:
        raise NoReferenceError(f"{grpc_host or host} is not a valid address; set --grpc-host ADDRESS:PORT")
    return f"{_bracketed(name)}:{port}", parts.scheme == "https"


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _error_outcome(call: PlannedRequest, error: grpc.RpcError) -> str:
    status = error.code().name
    refusal = call.refusal
    if refusal is None or (status != refusal.status and status in _OVERLOAD):
        return status
    details = error.details() or ""
    good = status == refusal.status and any(words in details for words in refusal.messages.values())
    return OK if good else WRONG_REFUSAL


def _no_reference(when: str, address: str, error: grpc.RpcError) -> NoReferenceError:
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return NoReferenceError(
            f"no answer from {address}: {error.code().name}; if the server's gRPC is elsewhere, set "
            "GRPC_HOST (--grpc-host) to its address, with https:// before it for TLS"
        )
    return NoReferenceError(f"{when}, the server answered {error.code().name}: {error.details()}")

"""The front: authentication, admission, errors, metrics, log and traces of every call.

The server asks the front for the handler of each call before it reads a message: what is refused here is
never read. Unary methods are served as streams of one message, because such a handler reads the message
itself, with a time limit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

from gateway.access.admission import Admission
from gateway.access.authentication import authenticate
from gateway.access.tokens import TokenTable
from gateway.domain.errors import (
    ClientDisconnected,
    ShuttingDown,
    TritonflareError,
    UnknownError,
    without_frames,
)
from gateway.inference_protocol.grpc.call import Call
from gateway.inference_protocol.grpc.ending import abort, conclude
from gateway.inference_protocol.grpc.limits import GrpcLimits
from gateway.inference_protocol.grpc.open_calls import OpenCalls
from gateway.inference_protocol.grpc.operations import Context, Operations
from gateway.inference_protocol.grpc.protobuf import Message, parsed, stream_failure
from gateway.inference_protocol.grpc.receive import MessageReceiver
from gateway.inference_protocol.grpc.statuses import code_of
from gateway.inference_protocol.grpc.stream import answer_stream
from gateway.pipeline.observer import RequestObserver
from gateway.telemetry.client_address import ClientAddress

_log = logging.getLogger("tritonflare.grpc")

_INFERENCE = "inference.GRPCInferenceService"
_TOKENLESS_METHODS = frozenset({f"/{_INFERENCE}/ServerLive", f"/{_INFERENCE}/ServerReady"})
_ADMITTED = frozenset({f"/{_INFERENCE}/ModelInfer", f"/{_INFERENCE}/ModelStreamInfer"})
_WATCHERS = frozenset({"/grpc.health.v1.Health/Watch", f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"})
"""Methods without a token whose calls stay open."""

_QUIET_S = 0.01
"""Time without a new call after which none is on its way from gRPC's threads."""
_LONGEST_HOLD_S = 0.1

Handler = Any
"""A ``grpc.RpcMethodHandler``; its types know synchronous servers only."""


class Front:
    """Finds the handler of a call; services are added to it as to a server.

    Args:
        tokens: the accounts' tokens.
        admission: refuses inference early when there is no place.
        observer: counts, traces and logs each request.
        count: counts a request by method and status.
        client_address: finds the address of a call's client for the access log; None leaves it out.
        limits: see `GrpcLimits`.
    """

    def __init__(
        self,
        tokens: TokenTable,
        admission: Admission,
        observer: RequestObserver,
        count: Callable[[str, str], None],
        client_address: ClientAddress | None,
        limits: GrpcLimits,
    ) -> None:
        self._tokens = tokens
        self._admission = admission
        self._observer = observer
        self._count = count
        self._client_address = client_address
        self._limits = limits
        self._open = OpenCalls(limits.max_streams)
        self._operations = Operations()
        self._receiver = MessageReceiver(
            self._operations, limits.max_message_bytes, limits.transfer_timeout_s
        )
        self._handlers: dict[str, Handler] = {}
        self._arrived_at = 0.0
        self._may_respond = asyncio.Event()
        self._may_respond.set()
        self.draining = asyncio.Event()
        """Ends idle streams once set."""

    @property
    def calls(self) -> int:
        """Calls with a token that are under way, streams included."""
        return self._open.with_token

    @property
    def methods(self) -> Iterable[str]:
        """The paths of all methods."""
        return self._handlers.keys()

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service; generated code calls this."""
        self._handlers |= {f"/{service}/{method}": handler for method, handler in handlers.items()}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing: generated code registers the same methods in two ways."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a call; for one that is refused, a handler that does not read its message."""
        self._arrived_at = time.monotonic()
        route = handler_call_details.method
        handler = self._handlers.get(route)
        if handler is None:
            return None
        call = Call(route, handler_call_details.invocation_metadata)
        call.watcher = route in _WATCHERS
        call.tokenless = route in _TOKENLESS_METHODS or not _is_inference(call)
        try:
            self._admit(call)
        except TritonflareError as exc:
            return self._refusal(call, without_frames(exc))
        return self._wrap(call, handler)

    @asynccontextmanager
    async def responses_held(self) -> AsyncIterator[None]:
        """Hold back responses until the end of the block, which begins when calls have stopped arriving.

        Clients that wait for an answer before they call again send nothing meanwhile.
        """
        self._may_respond.clear()
        try:
            longest = time.monotonic() + _LONGEST_HOLD_S
            while time.monotonic() < min(longest, self._arrived_at + _QUIET_S):
                await asyncio.sleep(_QUIET_S / 4)
            yield
        finally:
            self._may_respond.set()

    def _admit(self, call: Call) -> None:
        if not call.tokenless:
            call.account = authenticate(call, None, self._tokens)
        self._open.check(call)
        if call.record.route in _ADMITTED:
            self._admission.check()

    def _wrap(self, call: Call, handler: Handler) -> Handler:
        if not _is_inference(call):
            return self._of_other_service(call, handler)
        if handler.request_streaming:
            return self._stream(call, handler)
        return self._unary(call, handler)

    def _refusal(self, call: Call, error: TritonflareError) -> Handler:
        async def refuse(context: Context) -> None:
            self._attach(call, context)
            if not call.tokenless:
                self._observer.begin(call, call.record)
            if _is_inference(call):
                self._end(call, error)
            await abort(context, error, call)

        return grpc.stream_stream_rpc_method_handler(self._guarded(call, refuse))

    def _unary(self, call: Call, handler: Handler) -> Handler:
        async def response(context: Context) -> Message:
            raw = await self._receiver.receive(call, context)
            return await handler.unary_unary(parsed(handler.request_deserializer, raw), call)

        async def answer(context: Context) -> Message:
            self._open_call(call, context)
            outcome = await self._run(call, partial(response, context))
            await self._may_respond.wait()
            await conclude(context, outcome, call)
            return outcome

        async def answer_probe(context: Context) -> None:
            self._open_call(call, context)

            async def behave() -> None:
                # Its status is known once the prober has read the response.
                with self._open.probing(self._limits.transfer_timeout_s):
                    message = await response(context)
                    await self._may_respond.wait()
                    await self._operations.write(context, message)

            await conclude(context, await self._run(call, behave), call)

        if call.tokenless:
            guarded = self._guarded(call, answer_probe)
            return grpc.stream_stream_rpc_method_handler(guarded, None, handler.response_serializer)
        guarded = self._guarded(call, answer)
        return grpc.stream_unary_rpc_method_handler(guarded, None, handler.response_serializer)

    def _stream(self, opened: Call, handler: Handler) -> Handler:
        async def stream(context: Context) -> None:
            self._open_call(opened, context)

            async def answer(raw: bytes) -> Message:
                return await self._answer_on_stream(opened.following(context.time_remaining()), handler, raw)

            begin_read = partial(self._operations.begin_read, context)
            write = partial(self._operations.write, context)
            if not await answer_stream(begin_read, answer, write, self.draining):
                await abort(context, ShuttingDown(), opened)

        guarded = self._guarded(opened, stream)
        return grpc.stream_stream_rpc_method_handler(guarded, None, handler.response_serializer)

    async def _answer_on_stream(self, call: Call, handler: Any, raw: bytes) -> Message:
        """Return the response to one message of a stream; an error is a response, too."""
        request: Message | None = None

        async def behave() -> Message:
            nonlocal request
            call.account = authenticate(call, None, self._tokens)  # the token may have been revoked since
            request = parsed(handler.request_deserializer, self._receiver.decompress(raw))
            return await handler.stream_stream(request, call)

        outcome = await self._run(call, behave)
        return stream_failure(request, outcome) if isinstance(outcome, TritonflareError) else outcome

    def _of_other_service(self, call: Call, handler: Handler) -> Handler:
        """Bound the calls of health and reflection, which are neither counted nor logged."""

        async def responses(context: Context) -> AsyncIterator[Message]:
            if handler.request_streaming:
                answers = handler.stream_stream(self._messages(handler, context), context)
            else:
                behave = handler.unary_unary or handler.unary_stream
                answers = behave(
                    parsed(handler.request_deserializer, await self._receiver.receive(call, context)), context
                )
            async for answer in answers:
                yield answer

        async def answer(context: Context) -> None:
            self._open_call(call, context)
            with nullcontext() if call.watcher else self._open.probing(self._limits.transfer_timeout_s):
                async for response in responses(context):
                    await self._operations.write(context, response)

        guarded = self._guarded(call, answer)
        return grpc.stream_stream_rpc_method_handler(guarded, None, handler.response_serializer)

    def _guarded(self, call: Call, behave: Callable[[Context], Awaitable[Message]]) -> Handler:
        """Return the behaviour of a handler, whose call gets a status whatever goes wrong in ``behave``."""

        async def guarded(_: object, context: Context) -> Message:
            try:
                return await behave(context)
            except grpc.aio.BaseError:
                raise  # gRPC's own: the call is aborted already, or its client has gone
            except TritonflareError as exc:
                error = without_frames(exc)
            except Exception as exc:
                error = _defect(exc, call)
            await abort(context, error, call)

        return guarded

    async def _messages(self, handler: Handler, context: Context) -> AsyncIterator[Message]:
        async for raw in self._receiver.receive_all(context):
            yield parsed(handler.request_deserializer, raw)

    async def _run(self, call: Call, behave: Callable[[], Awaitable[Message]]) -> Message | TritonflareError:
        """Answer one request, and count it."""
        error: TritonflareError | None = None
        response: Message = None
        try:
            if not call.tokenless:
                self._observer.begin(call, call.record)
            response = await behave()
        except TritonflareError as exc:
            error = without_frames(exc)
        except (asyncio.CancelledError, grpc.aio.BaseError):
            # The latter comes from a write to a client that has gone.
            self._end(call, ClientDisconnected())
            raise
        except Exception as exc:
            error = _defect(exc, call)
        self._end(call, error)
        return response if error is None else error

    def _attach(self, call: Call, context: Context) -> None:
        call.attach(context)
        if self._client_address is not None:
            call.record.client = self._client_address.of_request(call)

    def _open_call(self, call: Call, context: Context) -> None:
        """Count an admitted call until it ends."""
        self._attach(call, context)
        self._open.change(call, 1)
        # The stubs give the callback a type that no function has.
        forget: Any = lambda _: self._open.change(call, -1)  # noqa: E731
        context.add_done_callback(forget)

    def _end(self, call: Call, error: TritonflareError | None) -> None:
        """Give metrics, traces and the access log what they have to know of an answer."""
        record = call.record
        record.seconds = time.perf_counter() - call.started
        record.status, record.code = (200, 0) if error is None else (error.status, error.code)
        record.grpc_status = (grpc.StatusCode.OK if error is None else code_of(error)).name
        self._count(record.route.rpartition("/")[2], record.grpc_status)
        self._observer.end(record, api=not call.tokenless)


def _defect(exc: Exception, call: Call) -> TritonflareError:
    """Log an exception that is not of the tree, and return its error; gRPC would show it to the caller."""
    ray = call.record.ray_id
    _log.error("request %s failed", ray, exc_info=exc, extra={"ray": ray})
    without_frames(exc)
    return UnknownError()


def _is_inference(call: Call) -> bool:
    return call.record.route.startswith(f"/{_INFERENCE}/")

"""The pipeline for requests whose body asks something of a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from gateway.api.context import RequestContext
from gateway.api.request_body import BodyReader
from gateway.batches.queue import FetchedBatch
from gateway.domain.catalogue import Catalogue, Model
from gateway.domain.errors import (
    BackendUnavailable,
    BodyTooLarge,
    NoSuchModel,
    TritonflareError,
    without_frames,
)
from gateway.domain.options import LongTexts
from gateway.domain.requests import BatchCall, Call, PollCall, read_call, read_poll
from gateway.domain.service import BatchItem
from gateway.pipeline.caller import Caller
from gateway.pipeline.deadline import RequestDeadline
from gateway.pipeline.model_label import label_with_model
from gateway.pipeline.queued import ReadRun, RunCall, RunOutcome
from gateway.server.message import Response

_Message = TypeVar("_Message")
_RUN = "run/"
_POLL_BYTES = 16 * 1024
"""Largest body of a poll for a batch whose model is not served any more."""
_RENDERED_AT_ONCE_BYTES = 16 * 1024
"""Outcomes of some 200 texts with two labels; rendering them takes a few milliseconds."""


class PredictBody:
    """Reads the body of an HTTP request and answers what it asks for.

    Args:
        run: answers it.
        catalogue: the models.
        bodies: reads bodies of ``max_body_bytes``.
        max_body_bytes: largest body.
        max_queued_body_bytes: largest body of a request that queues a batch.
        long_texts: what becomes of long texts if a call does not say; see the setting of the same name.
    """

    def __init__(
        self,
        run: RunCall,
        catalogue: Catalogue,
        bodies: BodyReader,
        max_body_bytes: int,
        max_queued_body_bytes: int,
        long_texts: LongTexts = "cut",
    ) -> None:
        self._run = run
        self._catalogue = catalogue
        self._bodies = bodies
        self._max_body_bytes = max_body_bytes
        self._max_queued_body_bytes = max_queued_body_bytes
        self._rendering = ThreadPoolExecutor(1, "batch-results")
        self.limits = run.limits.inputs
        self.long_texts: LongTexts = long_texts
        self.request_timeout_s = run.limits.request_timeout_s

    def find_model(self, context: RequestContext, name: str) -> Model:
        """Find a model; see `label_with_model`."""
        return label_with_model(context.record, self._catalogue.find, name)

    def routed_name(self, path: str) -> str:
        """Return the model's name in what follows ``workers-ai/`` in a path, with or without ``run/`` before.

        Clients write ``run/``, so a model whose own name begins like that counts only where no other has the
        rest of it for a name; behind a second ``run/`` it is always found.
        """
        name = path.removeprefix(_RUN) or path
        for each in (name, path):
            with suppress(NoSuchModel, BackendUnavailable):
                self._catalogue.find(each)
                return each
        return name

    def find_model_unless_polled(self, context: RequestContext, name: str) -> Model | NoSuchModel:
        """Find a model.

        Returns:
            The model, or why there is none: a body that polls for a batch may follow, whose model need not be
            served any more.

        Raises:
            NoSuchModel: no model of this name is served, and batches cannot be queued.
            BackendUnavailable: no model at all is known.
        """
        try:
            return self.find_model(context, name)
        except NoSuchModel as exc:
            if self.limits.can_queue:
                return without_frames(exc)
            raise

    def read_poll(self, payload: object, *, queued: bool) -> PollCall | None:
        """Return what a request polls for, if it does; the model need not be served any more.

        Raises:
            BadInput: see `read_poll`.
        """
        return read_poll(payload, queued=queued and self.limits.can_queue)

    def read(
        self, body: bytes, payload: object, model: Model | NoSuchModel, *, queued: bool
    ) -> tuple[Model, Call] | PollCall:
        """Read what a request asks for.

        Args:
            body: of the request.
            payload: the inputs in it.
            model: see `find_model_unless_polled`.
            queued: whether it asks for ``queueRequest``.

        Raises:
            BadInput: see `read_call`.
            BodyTooLarge: for something that is answered at once.
            NoSuchModel: there is no model, and it does not poll.
        """
        poll = self.read_poll(payload, queued=queued)
        if poll is not None:
            return poll
        if isinstance(model, NoSuchModel):
            raise model
        call = read_call(payload, model.task, self.limits, queued=queued)
        self.check_size(body, may_queue=isinstance(call, BatchCall) and call.is_queued)
        return model, call

    def check_size(self, body: bytes, *, may_queue: bool) -> None:
        """Refuse a large body unless it may be that of a queued batch.

        Raises:
            BodyTooLarge: it is not.
        """
        if not may_queue and len(body) > self._max_body_bytes:
            raise BodyTooLarge(self._max_body_bytes)

    async def render(
        self, batch: FetchedBatch, render: Callable[[Sequence[BatchItem]], Response]
    ) -> Response:
        """Render a batch; a large one in a thread, where it does not hold up other requests.

        There is one thread, so that many polls do not take the interpreter from the event loop together.
        """
        if batch.size <= _RENDERED_AT_ONCE_BYTES:
            return render(batch.items)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._rendering, lambda: render(batch.items))

    async def receive(self, context: RequestContext) -> bytes:
        """Read the body of a request that is answered in several steps; see `BodyReader.read`."""
        with RequestDeadline(self.request_timeout_s) as deadline:
            return await self._bodies.read(context.http, deadline)

    async def answer(self, caller: Caller, message: _Message, read: ReadRun[_Message]) -> RunOutcome:
        """Answer what has been received; see `RunCall`."""

        async def received(deadline: RequestDeadline) -> _Message:
            return message

        return await self._run(caller, received, read)

    async def __call__(
        self, context: RequestContext, read: ReadRun[bytes], *, may_queue: bool = False
    ) -> RunOutcome:
        """Answer a request; see `RunCall`.

        Args:
            context: the request.
            read: see `ReadRun`; it checks the size again (`read`).
            may_queue: whether it may turn out to ask for a queued batch, whose body may be larger.
        """
        limit_bytes = self._max_body_bytes
        if may_queue and self.limits.can_queue:
            limit_bytes = max(limit_bytes, self._max_queued_body_bytes)
        return await self._answer(context, read, limit_bytes)

    async def poll(self, context: RequestContext, read: ReadRun[bytes], missing: NoSuchModel) -> RunOutcome:
        """Answer a request for a model that there is not; only a poll can be answered.

        Raises:
            NoSuchModel: ``missing``, whatever else may be wrong with what is no poll.
        """

        def read_poll(body: bytes) -> tuple[Model, Call] | PollCall:
            try:
                return read(body)
            except TritonflareError:
                raise missing from None

        try:
            return await self._answer(context, read_poll, min(self._max_body_bytes, _POLL_BYTES))
        except BodyTooLarge:
            raise missing from None

    async def _answer(self, context: RequestContext, read: ReadRun[bytes], limit_bytes: int) -> RunOutcome:
        return await self._run(
            context.caller,
            lambda deadline: self._bodies.read(context.http, deadline, limit_bytes=limit_bytes),
            read,
        )

"""What a request of the API asks for: an answer now, a batch that is fetched later, or its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.access.rate_limit import RateLimit
from gateway.batches.queue import BatchQueue, FetchedBatch
from gateway.batches.store import PendingBatch
from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput
from gateway.domain.requests import BatchCall, Call, PollCall
from gateway.pipeline.caller import Caller
from gateway.pipeline.deadline import RequestDeadline
from gateway.pipeline.predict import Outcome, PredictCall, Receive

_Message = TypeVar("_Message")
ReadRun = Callable[[_Message], tuple[Model, Call] | PollCall]
"""Parses a request: returns the model and the call that it asks for, or that it is a poll."""
RunOutcome = Outcome | PendingBatch | FetchedBatch


class RunCall:
    """Answers requests at once, accepts batches, and answers polls.

    A queued batch holds no places in flight, neither while it waits nor when it is run: those are for live
    requests. The rate counts its requests when it is accepted, as for a batch that is answered at once.

    Args:
        predict: answers at once.
        rate: counts the requests of accepted batches.
        queue: of batches; None if all are answered at once.
    """

    def __init__(self, predict: PredictCall, rate: RateLimit, queue: BatchQueue | None) -> None:
        self._predict = predict
        self._rate = rate
        self._queue = queue
        self.limits = predict.limits

    async def __call__(
        self, caller: Caller, receive: Receive[_Message], read: ReadRun[_Message]
    ) -> RunOutcome:
        """Answer a request; see `PredictCall`.

        Raises:
            TritonflareError: the request is refused, or nothing of it was answered.
        """

        async def answer(message: _Message, deadline: RequestDeadline) -> RunOutcome:
            asked = read(message)
            if isinstance(asked, PollCall):
                caller.record.version = None  # another publication may have answered the batch
                return await self._fetch(caller, asked)
            model, call = asked
            if self._queue is not None and isinstance(call, BatchCall) and call.is_queued:
                caller.record.version = None
                return await self._submit(caller, model, call, self._queue)
            return await self._predict.answer(caller, model, call, deadline)

        return await self._predict.admitted(caller, receive, answer)

    async def _submit(self, caller: Caller, model: Model, call: BatchCall, queue: BatchQueue) -> PendingBatch:
        """Accept a batch.

        Raises:
            BatchQueueFull: there is no room for it.
            RateLimited: so many requests exceed the account's rate.
            BatchStoreUnavailable: it could not be stored.
        """
        batch = await queue.prepare(
            caller.account, caller.batch_owner, model.name, call.items, call.options, len(model.labels)
        )
        # First: what is refused for lack of room must not count against the rate.
        await queue.check_room(batch)
        await self._rate.spend(caller.account, len(call.items))
        return await queue.submit(batch)

    async def _fetch(self, caller: Caller, call: PollCall) -> PendingBatch | FetchedBatch:
        """Answer a poll.

        Raises:
            BadInput: the caller has no such batch.
            BatchStoreUnavailable: nobody knows.
        """
        if self._queue is None:
            raise BadInput("Error: '/request_id' is not known, a batch is answered at once")
        return await self._queue.fetch(caller.batch_owner, call.batch_id)

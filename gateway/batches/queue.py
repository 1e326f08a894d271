"""Submitting batches and fetching their results."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from gateway.batches import codec
from gateway.batches.store import BatchStore, NewBatch, PendingBatch
from gateway.domain.errors import BadInput
from gateway.domain.options import NO_OPTIONS, CallOptions
from gateway.domain.requests import BatchRequest, TextRequest, size_of
from gateway.domain.service import BatchItem

CHUNK_INPUTS = 64
"""Texts or pairs in a chunk, unless a single request has more: what a killed runner loses at most."""
_WINDOW_BYTES = 2048
"""About as many bytes of text as a window has; a text in windows counts as so many inputs of its chunk."""
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class FetchedBatch:
    """The result of a batch, still encoded: decoding a large one takes long."""

    id: str
    chunks: Sequence[bytes]
    """Encoded by `codec`."""

    @property
    def items(self) -> list[BatchItem]:
        """Decode the outcomes, in the order of the requests."""
        return [item for chunk in self.chunks for item in codec.decode_outcomes(chunk)]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.chunks))


class BatchQueue:
    """The use cases of batches that are fetched later.

    Args:
        store: keeps them.
        bucket_of: whose number of batches a batch of this account counts against.
        submitted: called when there is a new one.
    """

    def __init__(
        self,
        store: BatchStore,
        bucket_of: Callable[[str], str],
        submitted: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._bucket_of = bucket_of
        self._submitted = submitted
        self._storing: set[asyncio.Task[None]] = set()
        """The loop itself keeps no reference."""

    async def prepare(
        self,
        account: str,
        owner: str,
        model: str,
        requests: Sequence[BatchRequest],
        options: CallOptions = NO_OPTIONS,
        labels: int = 1,
    ) -> NewBatch:
        """Make a batch of requests; nothing is stored yet.

        Args:
            account: whose number of batches it counts against.
            owner: who alone may fetch its result; the store's name for it is ``account``.
            model: its public name.
            requests: those with a validation error included.
            options: of their call.
            labels: how many the model has; room for that many scores of each text or pair is reserved.
        """
        chunks = []
        for chunk in _chunks(requests, options):
            chunks.append(codec.encode_inputs(chunk, options))
            await asyncio.sleep(0)  # other requests have their turn
        bucket, scores = self._bucket_of(account), labels * sum(size_of(item.request) for item in requests)
        return NewBatch(str(uuid4()), owner, bucket, model, len(requests), chunks, scores)

    async def check_room(self, batch: NewBatch) -> None:
        """Check that a batch has room.

        Raises:
            BatchQueueFull: it has none.
            BatchStoreUnavailable: nobody knows.
        """
        await self._store.check_room(batch.bucket, batch.size)

    async def submit(self, batch: NewBatch) -> PendingBatch:
        """Accept a batch: it will be answered, whatever happens to this process.

        Raises:
            BatchQueueFull: there is no room for it; nothing is stored.
            BatchStoreUnavailable: it could not be stored.
        """
        # What has begun cannot be taken back: a caller that leaves meanwhile has submitted it as well.
        storing = asyncio.create_task(self._store_batch(batch))
        self._storing.add(storing)
        storing.add_done_callback(self._stored)
        await asyncio.shield(storing)
        return PendingBatch(batch.id, batch.model, is_running=False)

    async def _store_batch(self, batch: NewBatch) -> None:
        await self._store.submit(batch)
        self._submitted()

    def _stored(self, storing: asyncio.Task[None]) -> None:
        self._storing.discard(storing)
        if not storing.cancelled():
            storing.exception()  # nobody may be left to be told

    async def fetch(self, owner: str, batch_id: str) -> PendingBatch | FetchedBatch:
        """Return the result of a batch, or how far it is.

        Raises:
            BadInput: the owner has none of this id; the message is the same for an expired one, and for
                one of another owner.
            BatchStoreUnavailable: nobody knows.
        """
        found = await self._store.find(owner, batch_id) if _ID.fullmatch(batch_id) else None
        if found is None:
            raise BadInput("Error: '/request_id' is not known, or its result has expired")
        if isinstance(found, PendingBatch):
            return found
        return FetchedBatch(found.id, found.chunks)


def _chunks(requests: Sequence[BatchRequest], options: CallOptions) -> Iterator[list[BatchRequest]]:
    chunk: list[BatchRequest] = []
    inputs = 0
    for request in requests:
        size = size_of(request.request)
        if options.long_texts == "window" and isinstance(request.request, TextRequest):
            size += len(request.request.text) // _WINDOW_BYTES
        if chunk and inputs + size > CHUNK_INPUTS:
            yield chunk
            chunk, inputs = [], 0
        chunk.append(request)
        inputs += size
    yield chunk

"""What is kept of a queued batch, and what its store can do; there is one over SQLite and one over Redis.

A batch is stored in chunks of a few inputs. Each chunk gets its outcomes once: the first that are saved
stand, and its inputs are removed in the same step. So a batch that is run twice, because its runner was taken
for dead, still has one result, and what a killed runner had saved is not computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

BATCH_BYTES = 1536
CHUNK_BYTES = 64
PAGE_BYTES = 4096
"""What a batch and a chunk take in either store beside their contents; see `kept_bytes`."""
RESULT_BYTES = 128
SCORE_BYTES = 48
"""Room that is reserved for an outcome and for each of its scores, until their real size is known."""


def kept_bytes(chunks: Iterable[int]) -> int:
    """Return what a batch takes in the store, given the bytes of each chunk.

    A chunk is counted with the part of a page, or of a block of memory, that it may leave empty.
    """
    return BATCH_BYTES + sum(size + min(size, PAGE_BYTES) + CHUNK_BYTES for size in chunks)


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """See the settings of the same names."""

    max_queued_batches: int
    """Unfinished batches of a bucket."""
    batch_store_bytes: int
    batch_keep_s: float


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch as it is submitted."""

    id: str
    account: str
    """Only this account gets its result."""
    bucket: str
    """Whose number of batches it counts against."""
    model: str
    inputs: int
    chunks: Sequence[bytes]
    """The inputs, encoded by `codec`."""
    scores: int = 0
    """How many scores its outcomes will have: each label of a text, each context of a query."""

    @property
    def size(self) -> int:
        """Bytes that it takes in the store, its result included."""
        reserved = RESULT_BYTES * self.inputs + SCORE_BYTES * self.scores
        return kept_bytes(map(len, self.chunks)) + reserved


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that has no result yet."""

    id: str
    model: str
    is_running: bool
    """Whether a runner has begun it."""


@dataclass(frozen=True, slots=True)
class FinishedBatch:
    """A batch with its result."""

    id: str
    model: str
    chunks: Sequence[bytes]
    """The outcomes, encoded by `codec`, in the order of the inputs."""


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch that a runner has to itself until its lease ends."""

    id: str
    model: str
    waiting: Sequence[int]
    """The places of the chunks without outcomes, in order."""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What can be said of a batch that has just been finished."""

    model: str
    inputs: int
    failed: int
    """How many of them have an error for an outcome."""
    seconds: float
    """From its submission."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """The unfinished batches."""

    queued: int = 0
    """No runner has them."""
    running: int = 0
    oldest_s: float = 0.0
    """Age of the oldest; 0 without any."""


class BatchStore(Protocol):
    """Keeps batches for all processes that share it.

    Every method raises BatchStoreUnavailable if the store cannot be reached or written to; nothing has
    changed then, or all of it.
    """

    async def check_room(self, bucket: str, size: int) -> None:
        """Check that a batch of ``size`` bytes has room.

        Raises:
            BatchQueueFull: the bucket has too many unfinished batches, or the store is full.
        """
        ...

    async def submit(self, batch: NewBatch) -> None:
        """Store a batch; it survives the end of any process once this returns.

        Raises:
            BatchQueueFull: see `check_room`; nothing is stored.
        """
        ...

    async def find(self, account: str, batch_id: str) -> PendingBatch | FinishedBatch | None:
        """Return a batch of the account; None if it has none of this id, or the result has expired."""
        ...

    async def claim(self, owner: str, lease_s: float, skip: Collection[str] = ()) -> ClaimedBatch | None:
        """Take the oldest batch that no runner has, or whose runner's lease has ended; None without one.

        Batches for the models in ``skip`` are left alone.
        """
        ...

    async def renew(self, batch_id: str, owner: str, lease_s: float) -> bool:
        """Extend a lease; return False if another runner has the batch, or it is finished."""
        ...

    async def inputs(self, batch_id: str, place: int) -> bytes | None:
        """Return the inputs of a chunk; None if it has outcomes already."""
        ...

    async def save(self, batch_id: str, place: int, outcomes: bytes, failed: int) -> None:
        """Give a chunk its outcomes and remove its inputs, unless it has outcomes already."""
        ...

    async def finish(self, batch_id: str) -> BatchSummary | None:
        """Make the result available; None if a chunk has no outcomes, or it was finished before."""
        ...

    async def release(self, batch_id: str, owner: str) -> None:
        """Give a claimed batch back, so that another runner can take it at once."""
        ...

    async def remove_expired(self) -> None:
        """Remove the results that have been kept for long enough."""
        ...

    async def stats(self) -> StoreStats:
        """Count the unfinished batches."""
        ...

    async def close(self) -> None:
        """Release what it holds; batches stay, and every other method raises BatchStoreUnavailable."""
        ...

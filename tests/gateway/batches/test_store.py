"""What both stores promise: durable, shared, bounded, one result a batch."""

from __future__ import annotations

import asyncio

import pytest

from gateway.batches import codec
from gateway.batches.store import (
    BatchStore,
    ClaimedBatch,
    FinishedBatch,
    NewBatch,
    PendingBatch,
    StoreLimits,
    StoreStats,
    kept_bytes,
)
from gateway.domain.errors import BatchQueueFull, BatchStoreUnavailable
from gateway.domain.requests import BatchRequest, TextRequest
from gateway.domain.service import BatchItem, Classification, Ranking
from tests.gateway.batches.conftest import FIRST, ROOMY, OpenStore, a_batch, finish

LEASE_S = 30.0


async def test_a_batch_is_queued_then_running_then_finished(store: BatchStore) -> None:
    await store.submit(a_batch())
    assert await store.find("a", FIRST) == PendingBatch(FIRST, "m", is_running=False)
    assert await store.claim("r", LEASE_S) == ClaimedBatch(FIRST, "m", [0, 1])
    assert await store.find("a", FIRST) == PendingBatch(FIRST, "m", is_running=True)
    assert [await store.inputs(FIRST, place) for place in range(3)] == [b"first", b"second", None]
    summary = await finish(store)
    assert summary is not None
    assert (summary.model, summary.inputs, summary.failed) == ("m", 4, 1)
    assert 0 <= summary.seconds < 10
    assert await store.find("a", FIRST) == FinishedBatch(FIRST, "m", [b"one", b"two"])
    assert await store.claim("r", LEASE_S) is None


async def test_other_processes_see_what_was_accepted(open_store: OpenStore) -> None:
    first, second = open_store(ROOMY), open_store(ROOMY)
    await first.submit(a_batch())
    assert await second.find("a", FIRST) == PendingBatch(FIRST, "m", is_running=False)
    await second.claim("r", LEASE_S)
    await finish(second)
    await first.close()
    assert isinstance(await open_store(ROOMY).find("a", FIRST), FinishedBatch)


async def test_another_account_finds_nothing(store: BatchStore) -> None:
    await store.submit(a_batch())
    assert await store.find("b", FIRST) is None
    assert await store.find("a", "batch-1") is None
    await finish(store)
    assert await store.find("b", FIRST) is None


async def test_the_oldest_is_claimed_first_and_each_once(open_store: OpenStore) -> None:
    stores = [open_store(ROOMY) for _ in range(3)]
    for number in range(12):
        await stores[0].submit(a_batch(number))
    claimed = await asyncio.gather(*(stores[turn % 3].claim(f"runner {turn}", LEASE_S) for turn in range(12)))
    assert sorted(batch.id for batch in claimed if batch) == sorted(f"batch-{n}" for n in range(12))
    assert await stores[0].claim("another", LEASE_S) is None


async def test_order_is_that_of_submission(store: BatchStore) -> None:
    for number in (3, 1, 2):
        await store.submit(a_batch(number))
    claimed = [await store.claim("r", LEASE_S) for _ in range(3)]
    assert [batch.id for batch in claimed if batch] == ["batch-3", "batch-1", "batch-2"]


async def test_a_batch_whose_lease_ends_is_taken_over_without_what_was_saved(store: BatchStore) -> None:
    await store.submit(a_batch())
    await store.claim("dead", 0.3)
    await store.save(FIRST, 0, b"one", 0)
    assert await store.claim("next", LEASE_S) is None
    assert await store.renew(FIRST, "dead", 0.3)
    await asyncio.sleep(0.4)
    assert await store.claim("next", LEASE_S) == ClaimedBatch(FIRST, "m", [1])
    assert not await store.renew(FIRST, "dead", LEASE_S)
    assert await store.renew(FIRST, "next", LEASE_S)
    assert await store.inputs(FIRST, 0) is None


async def test_a_renewed_lease_holds(store: BatchStore) -> None:
    await store.submit(a_batch())
    await store.claim("r", 0.2)
    assert await store.renew(FIRST, "r", LEASE_S)
    await asyncio.sleep(0.3)
    assert await store.claim("next", LEASE_S) is None


async def test_batches_for_some_models_are_left_alone(open_store: OpenStore) -> None:
    store = open_store(ROOMY)
    for number, model in enumerate(("slow", "gone", "slow", "quick", "slow")):
        await store.submit(a_batch(number, model=model))
    await store.claim("dead", 0.1)
    await asyncio.sleep(0.2)
    claimed = [await store.claim("r", LEASE_S, ("gone", "slow", "no such")) for _ in range(2)]
    assert [batch and batch.id for batch in claimed] == ["batch-3", None]
    rest = [await store.claim("r", LEASE_S) for _ in range(5)]
    assert [batch and batch.id for batch in rest] == ["batch-0", "batch-1", "batch-2", "batch-4", None]


async def test_a_batch_that_is_released_can_be_claimed_at_once_and_only_by_its_owner(
    store: BatchStore,
) -> None:
    await store.submit(a_batch(0))
    await store.submit(a_batch(1))
    await store.claim("r", LEASE_S)
    await store.release(FIRST, "someone else")
    taken = await store.claim("next", LEASE_S)
    assert taken is not None
    assert taken.id == "batch-1"
    await store.release(FIRST, "r")
    assert await store.claim("next", LEASE_S) == ClaimedBatch(FIRST, "m", [0, 1])
    assert await store.find("a", FIRST) == PendingBatch(FIRST, "m", is_running=True)


async def test_the_first_saved_outcomes_stand(store: BatchStore) -> None:
    await store.submit(a_batch())
    await store.save(FIRST, 0, b"of the first runner", 0)
    await store.save(FIRST, 0, b"of the second", 9)
    await store.save(FIRST, 1, b"two", 0)
    summary = await store.finish(FIRST)
    assert summary is not None
    assert summary.failed == 0
    await store.save(FIRST, 1, b"later", 1)
    assert await store.find("a", FIRST) == FinishedBatch(FIRST, "m", [b"of the first runner", b"two"])


async def test_a_batch_is_finished_once_and_not_before_all_is_saved(store: BatchStore) -> None:
    await store.submit(a_batch())
    await store.save(FIRST, 1, b"two", 0)
    assert await store.finish(FIRST) is None
    assert await store.find("a", FIRST) == PendingBatch(FIRST, "m", is_running=False)
    await store.save(FIRST, 0, b"one", 0)
    assert await store.finish(FIRST) is not None
    assert await store.finish(FIRST) is None
    assert await store.finish("batch-9") is None


async def test_more_than_ten_chunks_keep_their_order(store: BatchStore) -> None:
    names = [f"chunk {place}".encode() for place in range(12)]
    await store.submit(a_batch(0, *names))
    claimed = await store.claim("r", LEASE_S)
    assert claimed is not None
    assert claimed.waiting == list(range(12))
    for place in reversed(range(12)):
        await store.save(FIRST, place, names[place], 0)
    await store.finish(FIRST)
    assert await store.find("a", FIRST) == FinishedBatch(FIRST, "m", names)


async def test_an_account_has_so_many_unfinished_batches(open_store: OpenStore) -> None:
    store = open_store(StoreLimits(2, 10_000_000, 3600))
    for number in range(2):
        await store.submit(a_batch(number))
    with pytest.raises(BatchQueueFull):
        await store.submit(a_batch(2))
    with pytest.raises(BatchQueueFull):
        await store.check_room("a", 1)
    assert await store.find("a", "batch-2") is None
    await store.submit(a_batch(3, account="b"))
    await store.claim("r", LEASE_S)
    with pytest.raises(BatchQueueFull):
        await store.submit(a_batch(2))
    await finish(store)
    await store.check_room("a", 1)
    await store.submit(a_batch(2))


async def test_the_store_has_so_many_bytes(open_store: OpenStore) -> None:
    batch = a_batch(0, b"x" * 1000)
    store = open_store(StoreLimits(100, 3 * batch.size - 1, 0.2))
    await store.submit(batch)
    await store.submit(a_batch(1, b"x" * 1000, account="b"))
    with pytest.raises(BatchQueueFull):
        await store.submit(a_batch(2, b"x" * 1000, account="c"))
    assert await store.find("c", "batch-2") is None
    # A finished one takes as much as its result.
    await store.save(FIRST, 0, b"y", 0)
    await store.finish(FIRST)
    await store.submit(a_batch(2, b"x" * 1000, account="c"))
    with pytest.raises(BatchQueueFull):
        await store.submit(a_batch(3, b"x" * 1000, account="d"))
    for number in (1, 2):
        await store.save(f"batch-{number}", 0, b"y", 0)
        await store.finish(f"batch-{number}")
    await asyncio.sleep(0.3)
    await store.remove_expired()
    for number in (4, 5):
        await store.submit(a_batch(number, b"x" * 1000))


@pytest.mark.parametrize("scores", [2, 28, 100])
def test_room_is_reserved_for_the_labels_and_contexts_of_a_batch(scores: int) -> None:
    inputs = [BatchRequest(None, TextRequest("a"))] * 64
    labels = [(f"disappointment {place}", 1.2345678901234567e-05) for place in range(scores)]
    contexts = [(place, 1.2345678901234567e-05) for place in range(scores)]
    for answer in (Classification(labels, 510, True), Ranking(contexts, ())):
        outcomes = codec.encode_outcomes([BatchItem(None, answer)] * 64)
        batch = NewBatch("0", "a", "a", "m", 64, [codec.encode_inputs(inputs)], 64 * scores)
        assert kept_bytes([len(outcomes)]) <= batch.size < 4 * kept_bytes([len(outcomes)])


async def test_a_result_expires(open_store: OpenStore) -> None:
    store = open_store(StoreLimits(100, 10_000_000, 0.3))
    await store.submit(a_batch())
    await finish(store)
    assert await store.find("a", FIRST) is not None
    await store.remove_expired()
    assert await store.find("a", FIRST) is not None
    await asyncio.sleep(0.4)
    assert await store.find("a", FIRST) is None
    with pytest.raises(BatchQueueFull):
        await store.check_room("a", 10_000_000)
    await store.remove_expired()
    await store.check_room("a", 10_000_000)


async def test_a_batch_that_waits_never_expires(open_store: OpenStore) -> None:
    store = open_store(StoreLimits(100, 10_000_000, 0.1))
    await store.submit(a_batch())
    await asyncio.sleep(0.2)
    await store.remove_expired()
    assert await store.find("a", FIRST) is not None


async def test_a_store_that_is_closed_is_unavailable(store: BatchStore) -> None:
    await store.submit(a_batch())
    await store.close()
    for call in (
        store.stats,
        store.remove_expired,
        lambda: store.claim("r", 1),
        lambda: store.find("a", FIRST),
    ):
        with pytest.raises(BatchStoreUnavailable):
            await call()
    await store.close()


async def test_the_statistics_are_those_of_unfinished_batches(store: BatchStore) -> None:
    assert await store.stats() == StoreStats()
    for number in range(3):
        await store.submit(a_batch(number))
    await store.claim("r", LEASE_S)
    await asyncio.sleep(0.1)
    stats = await store.stats()
    assert (stats.queued, stats.running) == (2, 1)
    assert 0.1 <= stats.oldest_s < 10
    for number in range(3):
        await finish(store, f"batch-{number}")
    assert await store.stats() == StoreStats()

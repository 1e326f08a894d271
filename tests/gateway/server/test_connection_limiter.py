"""Admission and eviction of connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.server.connection_limiter import ConnectionLimiter, LimiterEvents


class FakeConnection:
    def __init__(self, evicted: list[FakeConnection]) -> None:
        self._evicted = evicted

    def evict(self) -> None:
        self._evicted.append(self)


def limiter_of(limit: int) -> tuple[ConnectionLimiter, list[str]]:
    events: list[str] = []
    return ConnectionLimiter(
        limit, LimiterEvents(lambda: events.append("evicted"), lambda: events.append("refused"))
    ), events


def test_the_longest_idle_is_evicted_first_and_a_busy_one_never() -> None:
    limiter, events = limiter_of(3)
    evicted: list[FakeConnection] = []
    a, b, c, d, e, f = (FakeConnection(evicted) for _ in range(6))
    assert all(limiter.add(each) for each in (a, b, c))
    limiter.mark_busy(a)
    limiter.mark_busy(b)
    limiter.mark_idle(b)  # so c has been idle for longer
    assert limiter.add(d)
    assert evicted == [c]
    assert limiter.add(e)
    assert evicted == [c, b]
    for each in (d, e):
        limiter.mark_busy(each)
    assert not limiter.add(f)
    assert events == ["evicted", "evicted", "refused"]
    assert len(limiter) == 4
    limiter.remove(f)
    limiter.remove(a)
    assert limiter.add(f)


def test_the_number_of_connections_that_get_a_refusal_is_limited() -> None:
    limiter, _ = limiter_of(1)
    first = FakeConnection([])
    limiter.add(first)
    limiter.mark_busy(first)
    refused = 0
    for _ in range(200):
        assert not limiter.add(FakeConnection([]))
        refused += not limiter.has_max_refused
    assert refused == 64


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["add", "mark_busy", "mark_idle", "remove"]), st.integers(0, 9))),
)
def test_more_connections_than_the_limit_are_open_only_if_all_are_busy(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    limiter, _ = limiter_of(limit)
    evicted: list[FakeConnection] = []
    connections = [FakeConnection(evicted) for _ in range(10)]
    admitted: set[FakeConnection] = set()
    busy: set[FakeConnection] = set()
    for step, number in steps:
        connection = connections[number]
        if step == "add" and connection not in admitted:
            has_room = len(admitted) < limit or admitted != busy
            assert limiter.add(connection) == has_room
            if has_room:
                admitted.add(connection)
            else:
                limiter.remove(connection)
            admitted -= set(evicted)
            evicted.clear()
        elif step == "remove":
            limiter.remove(connection)
            admitted.discard(connection)
            busy.discard(connection)
        elif connection in admitted and step == "mark_busy":
            limiter.mark_busy(connection)
            busy.add(connection)
        elif connection in busy and step == "mark_idle":
            limiter.mark_idle(connection)
            busy.discard(connection)
        assert len(limiter) == len(admitted) <= limit

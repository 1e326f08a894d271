"""Who makes room for whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.server.connection_limiter import ConnectionLimiter, LimiterEvents


class Someone:
    def __init__(self, limiter: ConnectionLimiter, left: list[Someone]) -> None:
        self.limiter, self.left = limiter, left

    def evict(self) -> None:
        self.left.append(self)


def limiter_of(limit: int) -> tuple[ConnectionLimiter, list[str]]:
    events: list[str] = []
    return ConnectionLimiter(
        limit, LimiterEvents(lambda: events.append("room"), lambda: events.append("refused"))
    ), events


def test_the_longest_resting_goes_first_and_those_that_work_never_do() -> None:
    limiter, events = limiter_of(3)
    left: list[Someone] = []
    a, b, c, d, e, f = (Someone(limiter, left) for _ in range(6))
    assert all(limiter.add(each) for each in (a, b, c))
    limiter.mark_busy(a)
    limiter.mark_busy(b)
    limiter.mark_idle(b)  # c has rested for longer now
    assert limiter.add(d)
    assert left == [c]
    assert limiter.add(e)
    assert left == [c, b]
    for each in (d, e):
        limiter.mark_busy(each)
    assert not limiter.add(f)
    assert events == ["room", "room", "refused"]
    assert len(limiter) == 4
    limiter.remove(f)
    limiter.remove(a)
    assert limiter.add(f)


def test_far_above_the_limit_nobody_is_told_any_more() -> None:
    limiter, _ = limiter_of(1)
    first = Someone(limiter, [])
    limiter.add(first)
    limiter.mark_busy(first)
    told = 0
    for _ in range(200):
        assert not limiter.add(Someone(limiter, []))
        told += not limiter.has_max_refused
    assert told == 64


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["enter", "works", "rests", "leave"]), st.integers(0, 9))),
)
def test_never_more_than_the_limit_unless_all_work(limit: int, steps: list[tuple[str, int]]) -> None:
    limiter, _ = limiter_of(limit)
    left: list[Someone] = []
    people = [Someone(limiter, left) for _ in range(10)]
    inside: set[Someone] = set()
    working: set[Someone] = set()
    for step, number in steps:
        one = people[number]
        if step == "enter" and one not in inside:
            had_room = len(inside) < limit or inside != working
            assert limiter.add(one) == had_room
            if had_room:
                inside.add(one)
            else:
                limiter.remove(one)
            inside -= set(left)
            left.clear()
        elif step == "leave":
            limiter.remove(one)
            inside.discard(one)
            working.discard(one)
        elif one in inside and step == "works":
            limiter.mark_busy(one)
            working.add(one)
        elif one in working and step == "rests":
            limiter.mark_idle(one)
            working.discard(one)
        assert len(limiter) == len(inside) <= limit

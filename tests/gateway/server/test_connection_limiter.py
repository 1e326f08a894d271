"""Who makes room for whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.server.connection_limiter import Crowd, CrowdEvents


class Someone:
    def __init__(self, crowd: Crowd, left: list[Someone]) -> None:
        self.crowd, self.left = crowd, left

    def make_room(self) -> None:
        self.left.append(self)


def crowd_of(limit: int) -> tuple[Crowd, list[str]]:
    events: list[str] = []
    return Crowd(limit, CrowdEvents(lambda: events.append("room"), lambda: events.append("refused"))), events


def test_the_longest_resting_goes_first_and_those_that_work_never_do() -> None:
    crowd, events = crowd_of(3)
    left: list[Someone] = []
    a, b, c, d, e, f = (Someone(crowd, left) for _ in range(6))
    assert all(crowd.enter(each) for each in (a, b, c))
    crowd.works(a)
    crowd.works(b)
    crowd.rests(b)  # c has rested for longer now
    assert crowd.enter(d)
    assert left == [c]
    assert crowd.enter(e)
    assert left == [c, b]
    for each in (d, e):
        crowd.works(each)
    assert not crowd.enter(f)
    assert events == ["room", "room", "refused"]
    assert len(crowd) == 4
    crowd.leave(f)
    crowd.leave(a)
    assert crowd.enter(f)


def test_far_above_the_limit_nobody_is_told_any_more() -> None:
    crowd, _ = crowd_of(1)
    first = Someone(crowd, [])
    crowd.enter(first)
    crowd.works(first)
    told = 0
    for _ in range(200):
        assert not crowd.enter(Someone(crowd, []))
        told += not crowd.is_overfull
    assert told == 64


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["enter", "works", "rests", "leave"]), st.integers(0, 9))),
)
def test_never_more_than_the_limit_unless_all_work(limit: int, steps: list[tuple[str, int]]) -> None:
    crowd, _ = crowd_of(limit)
    left: list[Someone] = []
    people = [Someone(crowd, left) for _ in range(10)]
    inside: set[Someone] = set()
    working: set[Someone] = set()
    for step, number in steps:
        one = people[number]
        if step == "enter" and one not in inside:
            had_room = len(inside) < limit or inside != working
            assert crowd.enter(one) == had_room
            if had_room:
                inside.add(one)
            else:
                crowd.leave(one)
            inside -= set(left)
            left.clear()
        elif step == "leave":
            crowd.leave(one)
            inside.discard(one)
            working.discard(one)
        elif one in inside and step == "works":
            crowd.works(one)
            working.add(one)
        elif one in working and step == "rests":
            crowd.rests(one)
            working.discard(one)
        assert len(crowd) == len(inside) <= limit

"""How many connections there are descriptors for."""

from __future__ import annotations

import resource
import tempfile
from contextlib import ExitStack

import pytest

from gateway.processes.open_files import MOST_CONNECTIONS, RESERVED, OpenFiles, room_for_connections
from gateway.settings import ConfigurationError


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Soft and hard limit, as a process would have them."""
    found = [1024, 65_536]

    def set_limit(_: int, given: tuple[int, int]) -> None:
        found[:] = given

    monkeypatch.setattr("gateway.processes.open_files.resource.getrlimit", lambda _: tuple(found))
    monkeypatch.setattr("gateway.processes.open_files.resource.setrlimit", set_limit)
    return found


def test_the_soft_limit_is_raised_as_far_as_needed(limits: list[int]) -> None:
    assert room_for_connections(2000) == 2000
    assert limits == [2000 + RESERVED, 65_536]
    assert room_for_connections(100) == 100
    assert limits == [2000 + RESERVED, 65_536]


@pytest.mark.parametrize(
    ("hard", "expected"),
    [
        (65_536, MOST_CONNECTIONS),
        (4096, 4096 - RESERVED),
        (100, 1),
        (resource.RLIM_INFINITY, MOST_CONNECTIONS),
    ],
)
def test_without_a_wish_it_is_what_there_is_room_for(limits: list[int], hard: int, expected: int) -> None:
    limits[1] = hard
    assert room_for_connections(0) == expected


def test_more_than_the_hard_limit_leaves_room_for_is_refused(limits: list[int]) -> None:
    limits[:] = [256, 4096]
    with pytest.raises(
        ConfigurationError, match="GATEWAY_MAX_CONNECTIONS is 4000, but this process may open 4096"
    ):
        room_for_connections(4000)
    assert limits == [256, 4096]


def test_open_files_are_counted_as_a_share_of_the_limit_now_and_then(
    limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = 1000.0
    monkeypatch.setattr("gateway.processes.open_files.time.monotonic", lambda: time)
    files = OpenFiles()
    before = files.share()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(tempfile.TemporaryFile())
        assert files.share() == before
        time += 10
        assert files.share() * limits[0] == pytest.approx(before * limits[0] + 20)
    limits[0] = resource.RLIM_INFINITY
    time += 10
    assert files.share() == 0

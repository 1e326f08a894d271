"""What the soak counts as a failure; the soak itself is `make soak`."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

from tests.faults.soak import GROWTH, Size, Soak, leaks, report
from tests.support.load import HUNG, NO_ANSWER, Book, Outcome

EARLY = Size(100.0, 50, 5)


def test_growth_of_memory_files_and_processes_is_a_leak() -> None:
    assert leaks(EARLY, replace(EARLY, memory=100 * GROWTH, files=60)) == []
    for late in (
        replace(EARLY, memory=101 * GROWTH),
        replace(EARLY, files=80),
        replace(EARLY, processes=6),
        replace(EARLY, processes=4),
    ):
        assert len(leaks(EARLY, late)) == 1


def test_wrong_answers_hung_requests_and_dropped_ones_are_problems_and_refusals_are_none() -> None:
    soak = Soak(Mock(), random.Random(1), {}, 1.0, Path(), (Path(), Path()), Path())
    fine = [Outcome(0, 0.1, 200, right=True), Outcome(1, 0.1, 503, 3050, right=True)]
    book = Book(0, lambda: 0, [*fine, Outcome(2, 0.1, 200), Outcome(3, 6, HUNG), Outcome(4, 0, NO_ANSWER)])
    soak.look_at(book, "load")
    assert [problem.partition(" s ")[2] for problem in soak.problems] == [
        "got a wrong answer (status 200)",
        "hung (status -1)",
        "got no answer (status 0)",
    ]
    assert "3 problems" in report(soak, book, 1)
    soak.problems.clear()
    assert "no wrong answer, no hung or dropped request, no leak" in report(soak, book, 1)

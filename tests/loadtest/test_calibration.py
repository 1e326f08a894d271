"""The closed loop that finds the capacity."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import gevent
import pytest

from loadtest.generator import Run, _find_capacity
from loadtest.options import LoadOptions
from tests.loadtest.test_options import parser


class _Answers(Run):
    """A run whose server answers what it is told."""

    def __init__(self, outcomes: Iterator[str]) -> None:
        super().__init__(argparse.Namespace(host="http://h"))
        self.generators = 1
        self._outcomes = outcomes
        self._options = LoadOptions.of(parser().parse_args(["--calibration=0.2s", "--calibration-users=2"]))

    @property
    def options(self) -> LoadOptions:
        return self._options

    def draw(self) -> Any:
        return None

    def answer(self, client: Any, call: Any) -> tuple[str, int]:
        gevent.sleep(0.005)
        return next(self._outcomes), 0


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "a-token-of-the-tests")


def test_wrong_answers_while_the_capacity_is_found_are_kept() -> None:
    # The very first ones, which the capacity leaves out.
    run = _Answers(chain(["wrong score", "429/3040"], repeat("ok")))
    assert _find_capacity(run, None) > 50
    assert run.record.at(0, "calibration").outcomes == {"wrong score": 1}


def test_without_a_good_answer_there_is_no_capacity_and_everything_is_kept() -> None:
    run = _Answers(repeat("429/3040"))
    assert _find_capacity(run, None) == 0
    second = run.record.at(0, "calibration")
    assert second.due == second.outcomes["429/3040"] > 10

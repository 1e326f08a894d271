"""The bound on the requests in flight."""

from __future__ import annotations

import asyncio

import pytest

from gateway.access.admission import Admission
from gateway.domain.errors import Overloaded


def test_admission_counts_down_after_errors_too() -> None:
    admission = Admission(1)

    def work(error: type[BaseException]) -> None:
        with admission:
            assert admission.in_flight == 1
            raise error

    for error in (ValueError, KeyboardInterrupt, asyncio.CancelledError):
        with pytest.raises(error):
            work(error)
    assert admission.in_flight == 0


def test_the_request_above_the_limit_is_refused_and_not_counted() -> None:
    admission = Admission(2)
    with admission, admission:
        with pytest.raises(Overloaded), admission:
            pass
        assert admission.in_flight == 2
    assert admission.in_flight == 0

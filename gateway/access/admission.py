"""The bound on the requests in flight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.domain.errors import Overloaded


class Admission:
    """A bound on the requests in flight; use it as a context manager around each.

    A request for several texts takes as many places; those beyond the first once their number is known.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_flight = 0

    def __enter__(self) -> None:
        if self.in_flight >= self._limit:
            raise Overloaded
        self.in_flight += 1

    def check(self) -> None:
        """Check that a place is free, without taking it.

        Raises:
            Overloaded: no place is free.
        """
        if self.in_flight >= self._limit:
            raise Overloaded

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1

    @contextmanager
    def spare_places(self, count: int) -> Iterator[None]:
        """Take ``count`` more places for a request that could do without, or none.

        Half of all places are left to requests that could not.

        Raises:
            Overloaded: fewer places can be spared.
        """
        if self.in_flight + count > self._limit // 2:
            raise Overloaded
        with self.places(count):
            yield

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Take ``count`` more places, or none.

        Raises:
            Overloaded: fewer places are free.
        """
        if self.in_flight + count > self._limit:
            raise Overloaded
        self.in_flight += count
        try:
            yield
        finally:
            self.in_flight -= count

"""When requests arrive: shapes of load over time, and arrival times that wait for no answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

SPIKE = 3.0
"""What the load of a spike is multiplied by."""


def _constant(_: float) -> float:
    return 1.0


def _ramp(place: float) -> float:
    return 0.1 + 0.9 * place


def _spike(place: float) -> float:
    return SPIKE if 0.4 <= place < 0.6 else 1.0


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "ramp": _ramp,
    "spike": _spike,
    # The same load for long; its verdict also compares the end with the beginning.
    "soak": _constant,
}
"""Factor on the wanted load at a place (0…1) of the run."""


_STEPS = 1000


def mean_level(shape: str) -> float:
    """The factor that ``shape`` puts on the wanted load, on average over the run."""
    return sum(SHAPES[shape]((step + 0.5) / _STEPS) for step in range(_STEPS)) / _STEPS


def arrivals(shape: str, rate: float, seconds: float, even: bool, seed: int) -> Iterator[float]:
    """Times in seconds from 0 up to ``seconds`` at which requests are due, ``rate`` of them a second.

    ``even`` leaves equal gaps; otherwise callers are independent of each other (a Poisson process). The
    first gap is drawn too, so that several generators do not beat in time.
    """
    draw = random.Random(seed)  # noqa: S311 (a load test needs no secrecy)
    level = SHAPES[shape]
    time = draw.random() / (rate * level(0)) if even else 0.0
    if not even:
        time += draw.expovariate(rate * level(0))
    while time < seconds:
        yield time
        now = rate * level(time / seconds)
        time += 1 / now if even else draw.expovariate(now)


def users_at(shape: str, users: int, seconds: float, time: float) -> int:
    """Users that send in a closed loop ``time`` seconds after its beginning; at least one."""
    return max(1, round(users * SHAPES[shape](min(1.0, time / seconds))))

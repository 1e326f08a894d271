"""Full load for minutes, and whether memory grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from loadtest.bench.figures import Sample
from loadtest.bench.processes import ProcessTree

SETTLED_S = 60.0
"""Growth is counted from here: caches, arenas and pools have been filled."""


@dataclass
class Memory:
    """Resident megabytes of each program; ``at_s`` are the seconds since the load began."""

    at_s: list[float] = field(default_factory=list)
    mb: dict[str, list[float]] = field(default_factory=dict)

    def growth_percent(self, name: str, settled_s: float = SETTLED_S) -> float:
        """From the first sample at or after ``settled_s`` to the last, in per cent.

        If the load did not last that long, from the first sample of all.
        """
        values = [mb for at, mb in zip(self.at_s, self.mb[name], strict=True) if at >= settled_s]
        values = values or self.mb[name]
        return 100 * (values[-1] / values[0] - 1)


def soak(
    load: Callable[[], Sample],
    trees: Mapping[str, ProcessTree],
    progress: Callable[[float], None],
    every_s: float = 5.0,
) -> tuple[Sample, Memory]:
    """Run ``load`` to its end and read memory meanwhile; ``progress`` gets the seconds at each reading."""
    memory = Memory(mb={name: [] for name in trees})
    begin = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load)
        while not running.done():
            memory.at_s.append(time.monotonic() - begin)
            for name, tree in trees.items():
                memory.mb[name].append(tree.rss_bytes() / 1e6)
            progress(memory.at_s[-1])
            next_s = every_s * len(memory.at_s)
            while not running.done() and time.monotonic() - begin < next_s:
                time.sleep(min(0.2, every_s))
        return running.result(), memory

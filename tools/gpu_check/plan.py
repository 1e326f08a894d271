"""Which checks there are, in their order, and how much of the time each may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FULL_S = 480.0
"""What ``least_s`` is a part of."""
MINUTES = 8.0
SHORT_MINUTES = 5.0
"""A short run takes 64 s of processor time, and longer where other work is beside it."""


@dataclass(frozen=True)
class Check:
    """A check; ``runs`` is its function as ``module:function`` in this package.

    most_s: what it may take. least_s: what those before it must leave for it, in a run of eight minutes; of a
    shorter run it is as much less. needs: what has to have passed before.
    """

    name: str
    title: str
    runs: str
    most_s: float
    least_s: float
    needs: tuple[str, ...] = ()


CHECKS = (
    Check("doctor", "Machine", "machine:doctor", 40, 5),
    Check("export", "Export", "models:export", 150, 40),
    Check("operators", "Operators by provider", "operators:check", 60, 10, ("export",)),
    Check("gate", "Gate on the device", "models:gate", 120, 30, ("export",)),
    Check("golden", "Golden answers", "answers:golden", 90, 25, ("export",)),
    Check("invariance", "Answers beside others", "answers:invariance", 90, 25, ("export",)),
    Check("stub", "Encoder killed under load", "killed_stub:check", 90, 45, ("export",)),
    Check("memory", "Out of memory", "memory:check", 90, 40, ("export",)),
    Check("plan", "TensorRT plan", "plans:build", 90, 5, ("export",)),
    Check("bench", "Throughput", "load:bench", FULL_S, 100, ("export",)),
)


def limit_s(check: Check, left_s: float, total_s: float, checks: Sequence[Check] = CHECKS) -> float:
    """How long a check may take, so that those behind it keep what they need at least.

    Args:
        check: one of ``checks``.
        left_s: seconds until all must have ended.
        total_s: seconds that all were given.
        checks: all, in their order.
    """
    later = sum(other.least_s for other in checks[checks.index(check) + 1 :])
    return max(0.0, min(check.most_s, left_s - later * min(1.0, total_s / FULL_S)))

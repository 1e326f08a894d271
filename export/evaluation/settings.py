"""Settings of the measurements, apart from what measures: a plan must load without ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TimingSettings:
    """How long to measure.

    seconds: what the slowest artefact may take to answer all texts once, one by one; it decides
    how many texts are asked, the same for all. loads: how often each artefact is loaded.
    """

    rounds: int = 5
    seconds: float = 0.5
    loads: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.loads < 1:
            raise ValueError("rounds and loads must be at least 1")

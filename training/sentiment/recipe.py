"""The numbers behind the bundled checkpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the data."""

    seed: int = 20  # of the head; run n shuffles and drops out with seed + n
    runs: int = 4  # trained alike from one start, then averaged
    epochs: int = 3
    batch: int = 32
    learning_rate: float = 1.5e-4
    layer_decay: float = 0.9
    head_factor: float = 4.0
    weight_decay: float = 0.01
    warmup: float = 0.06
    sharpness: float = 3.0  # target = sigmoid(sharpness × rating)
    ema: float = 0.998  # averaging of weights, one step's decay
    use_dev: bool = True  # train on the dev split too, once the recipe stands

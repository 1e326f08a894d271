"""What the recipes share: groups of parameters, the learning rate's course, steps, averages, saved states."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

SAVE_EVERY = 100
"""Steps; a killed run repeats at most so many."""


class Rates(Protocol):
    """The part of a recipe that decides how fast each parameter learns."""

    @property
    def learning_rate(self) -> float:
        """Of the highest layer."""

    @property
    def layer_decay(self) -> float:
        """Each lower layer's rate is that of the next times this."""

    @property
    def head_factor(self) -> float:
        """The head's rate is the highest layer's times this."""

    @property
    def weight_decay(self) -> float:
        """AdamW's, for matrices."""


class Steps(Protocol):
    """A run that advances step by step; ``step`` is how many it has done."""

    step: int

    def advance(self) -> float:
        """Do one step; return its loss."""

    def save(self, file: Path) -> None:
        """Save the state, from which the run can go on."""


def advance_to(run: Steps, last: int, state: Path, *, total: int, name: str | None = None) -> None:
    """Advance a run to the step ``last`` of ``total``, saving as it goes, with a progress bar."""
    smooth = math.nan
    with tqdm(total=total, initial=run.step, unit="step", smoothing=0.05, desc=name) as bar:
        while run.step < last:
            loss = run.advance()
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            bar.update()
            bar.set_postfix(loss=f"{smooth:.4f}")
            if run.step % SAVE_EVERY == 0:
                run.save(state)


def parameter_groups(model: torch.nn.Module, rates: Rates, layers: int) -> list[dict[str, Any]]:
    """AdamW groups: lower layers learn more slowly; biases and norms do not decay."""
    groups: list[dict[str, Any]] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if ".layer." in name:
            depth = layers - 1 - int(name.split(".layer.")[1].split(".")[0])
            rate = rates.learning_rate * rates.layer_decay**depth
        elif "embeddings" in name:
            rate = rates.learning_rate * rates.layer_decay**layers
        else:
            rate = rates.learning_rate * rates.head_factor
        decay = rates.weight_decay if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "lr": rate, "peak": rate, "weight_decay": decay})
    return groups


def rise_and_fall(step: int, total: int, warmup: float) -> float:
    """Factor on the rates of step ``step`` (from 0): up from zero over the warm-up, then down to zero."""
    warm = max(1, round(warmup * total))
    return min((step + 1) / warm, (total - step) / (total - warm))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its peak times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, step: int, decay: float) -> None:
    """Move the average towards the model; early on it follows closely, and forgets the random head."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write the state beside the old one, then replace it in one step."""
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def load_state(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read a saved state; raise ValueError if another recipe made it."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["recipe"] != identity:
        raise ValueError(f"{path.name} belongs to another recipe; --fresh starts afresh.")
    return state

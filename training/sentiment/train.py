"""Fine-tune the bundled checkpoint: ``python -m training.sentiment.train`` (or ``make checkpoint``).

Seeded, and resumable: the state is saved as it goes, and the same command goes on from
there. The recipe was chosen on the ``dev`` split; the held-out split is scored once, at the
end, from the FP16 weights as they are written.
"""

from __future__ import annotations

import argparse
import random
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from training.optimisation import (
    advance_to,
    load_state,
    parameter_groups,
    rise_and_fall,
    save_state,
    set_rates,
    update_average,
)
from training.packages import unpack_minilm
from training.sentiment.data import load_lexicon, load_sentences
from training.sentiment.evaluate import accuracies
from training.sentiment.model import from_minilm, padded
from training.sentiment.publish import publish
from training.sentiment.recipe import Recipe

MAX_TOKENS = 128
LAYERS = 6


def epoch_batches(lengths: list[int], batch: int, rng: random.Random) -> list[list[int]]:
    """Shuffled batches of sentences of like length (sorted inside pools of 50 batches)."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    pool = batch * 50
    batches = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool], key=lengths.__getitem__)
        batches += [chunk[i : i + batch] for i in range(0, len(chunk), batch)]
    rng.shuffle(batches)
    return batches


class Trainer:
    """The runs of a recipe; the whole state can be saved and loaded between two steps."""

    def __init__(self, recipe: Recipe, rows: list[list[int]], ratings: list[float], base: Path):
        self.recipe, self.rows = recipe, rows
        self.targets = torch.sigmoid(torch.tensor(ratings) * recipe.sharpness)
        torch.manual_seed(recipe.seed)
        self.start = from_minilm(base)
        # Rare words keep their place among their neighbours from pretraining; also a quarter faster.
        self.start.distilbert.embeddings.word_embeddings.weight.requires_grad_(False)
        self.finished: list[dict[str, torch.Tensor]] = []
        self.begin_run()

    def begin_run(self) -> None:
        """Start the next run: same first weights, its own shuffling and dropout."""
        number = len(self.finished) + 1
        torch.manual_seed(self.recipe.seed + number)
        self.model = deepcopy(self.start)
        self.average = deepcopy(self.start).eval()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, self.recipe, LAYERS))
        rng = random.Random(self.recipe.seed + number)
        lengths = [len(row) for row in self.rows]
        epochs = range(self.recipe.epochs)
        self.plan = [b for _ in epochs for b in epoch_batches(lengths, self.recipe.batch, rng)]
        self.step = 0

    def end_run(self) -> None:
        """Keep the run's averaged weights."""
        self.finished.append(self.average.state_dict())

    def soup(self) -> torch.nn.Module:
        """The mean of the weights of all finished runs."""
        result = deepcopy(self.start).eval()
        names = self.finished[0]
        result.load_state_dict({n: torch.stack([w[n] for w in self.finished]).mean(0) for n in names})
        return result

    def save(self, path: Path) -> None:
        """Write the state beside the old one, then replace it in one step."""
        state = {
            "recipe": self._identity(),
            "step": self.step,
            "finished": self.finished,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_state(state, path)

    def load(self, path: Path) -> None:
        """Go on from a saved state; raise ValueError if another recipe made it."""
        state = load_state(path, self._identity())
        self.finished = state["finished"]
        self.begin_run()
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])

    def _identity(self) -> dict[str, Any]:
        """What a saved state must agree on; the number of runs may be raised later."""
        return {key: value for key, value in asdict(self.recipe).items() if key != "runs"}

    def advance(self) -> float:
        """One optimiser step; returns its loss."""
        set_rates(self.optimizer, rise_and_fall(self.step, len(self.plan), self.recipe.warmup))
        index = self.plan[self.step]
        self.model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(**padded([self.rows[i] for i in index])).logits
        positive = self.targets[index]
        loss = cross_entropy(logits.float(), torch.stack([1 - positive, positive], dim=1))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        update_average(self.average, self.model, self.step, self.recipe.ema)
        self.step += 1
        return float(loss.detach())


def train(recipe: Recipe, cache: Path, *, fresh: bool, report_dev: bool) -> torch.nn.Module:
    """Run or resume the recipe; return the mean of its runs."""
    base = unpack_minilm(cache)
    tokenizer = load_tokenizer(base)
    sentences = load_sentences(cache)
    parts = {"train", "dev"} if recipe.use_dev else {"train"}
    chosen = [s for s in (*sentences, *load_lexicon(cache)) if s.split in parts]
    rows = [tokenizer.encode(s.text).ids for s in chosen]
    trainer = Trainer(recipe, rows, [s.rating for s in chosen], base)
    state = cache / "state.pt"
    if state.exists() and not fresh:
        trainer.load(state)
    dev = [s for s in sentences if s.split == "dev"] if report_dev else []
    while len(trainer.finished) < recipe.runs:
        one_run(trainer, state)
        trainer.end_run()
        trainer.begin_run()
        trainer.save(state)
        if dev:
            runs = len(trainer.finished)
            tqdm.write(f"dev, mean of {runs} runs: {accuracies(trainer.soup(), dev, tokenizer)}")
    return trainer.soup()


def one_run(trainer: Trainer, state: Path) -> None:
    """Take the run that is under way to its last step, saving as it goes."""
    total = len(trainer.plan)
    name = f"run {len(trainer.finished) + 1} of {trainer.recipe.runs}"
    advance_to(trainer, total, state, total=total, name=name)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's tokenizer with its own padding (to 128, always) switched off."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def main() -> None:
    """Parse the command line, train, and write the checkpoint."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/minilm-sst2"))
    parser.add_argument("--fresh", action="store_true", help="ignore a saved state")
    parser.add_argument(
        "--dev-only", action="store_true", help="train without dev, report on dev, write nothing"
    )
    for name in ("seed", "runs", "epochs"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    for name in ("learning_rate", "layer_decay", "sharpness", "ema"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(defaults, name))
    given = parser.parse_args()
    fields = {k: v for k, v in vars(given).items() if k in asdict(defaults)}
    recipe = Recipe(**fields, use_dev=not given.dev_only)
    model = train(recipe, given.cache, fresh=given.fresh, report_dev=given.dev_only)
    if not given.dev_only:
        publish(model, recipe, given.cache, given.out)


if __name__ == "__main__":
    main()

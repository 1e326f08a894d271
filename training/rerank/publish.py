"""Write the trained reranker as a Hugging Face folder with a model card that states what was measured."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

import torch
from tokenizers import Tokenizer

from training.packages import unpack_minilm
from training.rerank.candidates import Group, ranking_groups
from training.rerank.dataset import load_pairs
from training.rerank.encode import load_tokenizer, rows_of
from training.rerank.evaluate import (
    HEADER,
    MAX_TOKENS,
    bm25,
    checkpoint_logits,
    groups_of,
    trained,
    untrained,
)
from training.rerank.model import parameters_of
from training.rerank.pairs import Pair
from training.rerank.recipe import Recipe

CARD = Path(__file__).with_name("model_card.md")
FILE_QUERIES, FILE_HARD, FILE_OTHERS = 200, 4, 1
BGE_PARAMETERS = 278e6  # of BAAI/bge-reranker-base
EXAMPLE_QUERY = "How do I find the largest files on my disk?"
EXAMPLES = (
    "This tool shows which folders and files take the most space on a hard drive.",
    "A collection of simple card games for two players.",
    "A text editor that finds and replaces words in large files.",
)


@dataclass(frozen=True)
class Trained:
    """What a finished run hands over: its averaged model, and the pairs whose queries it was trained on."""

    model: torch.nn.Module
    recipe: Recipe
    pairs: Sequence[Pair]
    tokenizer_file: Path


def publish(result: Trained, cache: Path, out: Path) -> None:
    """Save FP16 weights, tokenizer, config, a few held-out groups and the card with its figures."""
    save_folder(result.model, result.tokenizer_file, out)
    heldout = [p for p in load_pairs(cache) if p.split == "heldout"]
    groups = ranking_groups(heldout, FILE_QUERIES, FILE_HARD, FILE_OTHERS, result.recipe.seed)
    write_heldout(groups, out / "heldout.tsv")
    write_card(result, groups, cache, out)


def save_folder(model: torch.nn.Module, tokenizer_file: Path, out: Path) -> None:
    """Weights in FP16, config.json and the two files of the tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": MAX_TOKENS}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def write_heldout(groups: Sequence[Group], path: Path) -> None:
    """Held-out groups as TSV: query, text, label (1: it belongs to the query), source package of the text."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["query", "text", "label", "source"])
        for group in groups:
            for i, (text, source) in enumerate(zip(group.texts, group.sources, strict=True)):
                writer.writerow([group.query, text, int(i == 0), source])


def examples(folder: Path) -> str:
    """The documented query and its contexts with their scores, as rows of a table."""
    tokenizer = load_tokenizer(str(folder / "tokenizer.json"), MAX_TOKENS)
    rows = rows_of(tokenizer, [(EXAMPLE_QUERY, text) for text in EXAMPLES])
    scores = torch.sigmoid(checkpoint_logits(folder)(rows)).tolist()
    return "\n".join(f"| {text} | {score:.3f} |" for text, score in zip(EXAMPLES, scores, strict=True))


def files(folder: Path) -> str:
    """Size and SHA-256 of the weights and of the vocabulary, as rows of a table."""
    rows = []
    for name in ("model.safetensors", "tokenizer.json"):
        content = (folder / name).read_bytes()
        rows.append(f"| `{name}` | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |")
    return "\n".join(rows)


def write_card(result: Trained, bundled: Sequence[Group], cache: Path, out: Path) -> None:
    """Fill the card's template; the figures are measured here, never written by hand."""
    groups = groups_of(cache, "heldout")
    tokenizer = out / "tokenizer.json"
    logits = checkpoint_logits(out)
    measured = [
        bm25(groups),
        untrained(groups, unpack_minilm(cache)),
        trained("this model, in FP32 arithmetic", groups, tokenizer, logits),
    ]
    counts = Counter(pair.origin for pair in result.pairs)
    parameters = parameters_of(result.model)
    card = Template(CARD.read_text(encoding="utf-8")).substitute(
        figures="\n".join([HEADER, *(figure.row() for figure in measured)]),
        queries=len(groups),
        bundled=f"{trained('heldout.tsv', bundled, tokenizer, logits).mrr:.3f}",
        bundled_queries=len(bundled),
        bundled_texts=len(bundled[0].texts),
        examples=examples(out),
        example_query=EXAMPLE_QUERY,
        files=files(out),
        recipe="\n".join(f"| {key} | {value} |" for key, value in asdict(result.recipe).items()),
        synopses=f"{counts['debian']:,}",
        sentences=f"{counts['sentence']:,}",
        definitions=f"{counts['wordnet']:,}",
        vocabulary=f"{result.recipe.vocabulary:,}",
        max_tokens=result.recipe.max_tokens,
        parameters=f"{parameters / 1e6:.1f}",
        factor=round(BGE_PARAMETERS / parameters),
    )
    (out / "README.md").write_text(card, encoding="utf-8")

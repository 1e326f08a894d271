"""The bundled reranker: its files, its card, and what the exporter's graph computes from it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.checkpoint.model import Checkpoint
from export.checkpoint.pairs import PairTokenizer
from export.evaluation.pair_data import load_pairs
from export.evaluation.ranking import reciprocal_rank
from export.graph.encoder import build_graph
from training.rerank.pairs import contains, split_of

FOLDER = Path(__file__).parents[2] / "checkpoints" / "minilm-rerank"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


@cache
def checkpoint() -> Checkpoint:
    return load_checkpoint(FOLDER)


@cache
def heldout() -> list[dict[str, str]]:
    with (FOLDER / "heldout.tsv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    file = tmp_path_factory.mktemp("fp32") / "model.onnx"
    file.write_bytes(build_graph(checkpoint().encoder, "fp32").SerializeToString())
    return Artefact(file, 1)


def rows(pairs: list[tuple[str, str]]) -> list[list[int]]:
    tokenizer = PairTokenizer(Tokenizer.from_file(str(FOLDER / "tokenizer.json")), checkpoint())
    return [row for row in tokenizer.rows(pairs) if row is not None]


def table(heading: str) -> list[list[str]]:
    """The cells of the card's table below a line that starts with these words."""
    after = CARD.partition(heading)[2].partition("\n|---")[2].splitlines()[1:]
    lines = [line for line in after[: after.index("")] if line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_it_reads_pairs_with_token_types_under_cloudflares_name() -> None:
    assert checkpoint().task == "rerank"
    assert checkpoint().token_types
    assert checkpoint().max_tokens == 512
    card: dict[str, Any] = json.loads((FOLDER / "tritonflare.json").read_text())
    assert card["name"] == "@cf/baai/bge-reranker-base"
    assert "not BAAI's" in card["description"]


def test_the_folder_is_small_enough_for_git() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 25e6


def test_the_card_names_the_files_that_lie_beside_it() -> None:
    stated = {name.strip("`"): (size, digest.strip("`")) for name, size, digest in table("## Files")}
    assert set(stated) == {"model.safetensors", "tokenizer.json"}
    for name, (size, digest) in stated.items():
        content = (FOLDER / name).read_bytes()
        assert (f"{len(content):,}", hashlib.sha256(content).hexdigest()) == (size, digest)


def test_every_id_of_the_vocabulary_has_an_embedding_and_padding_is_0() -> None:
    document = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    ids = document["model"]["vocab"]
    assert sorted(ids.values()) == list(range(checkpoint().vocabulary))
    assert ids["[PAD]"] == 0
    assert all(ids[token["content"]] == token["id"] for token in document["added_tokens"])
    assert document["padding"] is None
    assert document["truncation"] is None


@pytest.mark.parametrize("text", ["naïve Straße", "这个披萨", "😀👍🏽", "\x00\u200b", "zzyzx " * 9, "~`|\\"])
def test_any_text_gets_ids_that_the_model_knows(text: str) -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    assert max(tokenizer.encode("query", text).ids) < checkpoint().vocabulary


def test_the_bundled_queries_were_not_trained_on() -> None:
    assert {split_of(row["source"]) for row in heldout()} == {"heldout"}
    assert not any(contains(row["text"], row["query"]) for row in heldout() if row["label"] == "1")


def test_the_cards_figure_for_the_bundled_queries_is_what_the_weights_give(fp32: Artefact) -> None:
    examples = load_pairs(FOLDER / "heldout.tsv")
    assert examples.targets is not None
    logits = fp32.alone(rows([(row["query"], row["text"]) for row in heldout()]))[:, 0]
    found = [
        reciprocal_rank(logits[list(group)], examples.targets[list(group), 0]) for group in examples.groups
    ]
    stated = re.search(r"MRR there: ([\d.]+)\.", CARD)
    assert stated is not None
    assert len(found) == 200
    assert float(np.mean(found)) == pytest.approx(float(stated[1]), abs=0.003)


def test_the_card_states_that_it_beats_what_it_has_to_beat() -> None:
    figures = {name: float(mrr) for name, mrr, *_ in table("## Measured")}
    bm25, cosine, own = figures.values()
    assert list(figures)[:2] == ["BM25", "cosine of the untrained encoder"]
    assert own > max(bm25, cosine)


def test_the_documented_example_scores_as_the_card_says(fp32: Artefact) -> None:
    query = re.search(r'^"(.+)"$', CARD, re.MULTILINE)
    assert query is not None
    examples = table(query[0])
    logits = fp32.alone(rows([(query[1], text) for text, _ in examples]))[:, 0]
    scores = 1 / (1 + np.exp(-logits))
    assert scores == pytest.approx([float(score) for _, score in examples], abs=0.002)
    assert scores.argmax() == 0

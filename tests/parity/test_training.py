"""The reranker's recipe with torch, on models of a few thousand weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, BertModel

from training.rerank.candidates import Bm25, Group, hardest, ranking_groups, reciprocal_rank
from training.rerank.dataset import Dataset, hard_texts, plan_batches
from training.rerank.encode import batch_of, load_tokenizer, logits_of, rows_of
from training.rerank.evaluate import bm25, checkpoint_logits, trained
from training.rerank.model import from_minilm
from training.rerank.pairs import Pair
from training.rerank.publish import save_folder, write_heldout
from training.rerank.recipe import Recipe
from training.rerank.train import Trainer, loss_of, run

LETTERS = "abcdefghijklmnopqrstuvwxyz"
RECIPE = Recipe(layers=2, hard=2, batch=4, max_tokens=24, epochs=2, learning_rate=1e-3)


def tokenizer_file(folder: Path) -> Path:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A random encoder of three layers in MiniLM's form."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=57, hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=3,
        max_position_embeddings=32,
    )  # fmt: skip
    folder = tmp_path / "base"
    BertModel(config).save_pretrained(folder)
    tokenizer_file(folder)
    return folder


@pytest.fixture
def dataset() -> Dataset:
    rows = [
        ("red fox", "a fox of red fur"),
        ("big cat", "the cat is big"),
        ("old dog", "a dog grown old"),
        ("wet fish", "fish swim in wet seas"),
        ("shy cat", "this cat is shy"),
        ("fox den", "den of a red fox"),
    ]
    pairs = [Pair(query, text, f"group-{i}", "debian") for i, (query, text) in enumerate(rows)]
    torch.manual_seed(2)
    vectors = torch.nn.functional.normalize(torch.randn(2, len(pairs), 384), dim=2)
    return Dataset(pairs, hard_texts(pairs, 3), vectors[0], vectors[1])


def trainer_of(base: Path, dataset: Dataset, recipe: Recipe = RECIPE) -> Trainer:
    torch.manual_seed(recipe.seed)
    model = from_minilm(base, list(range(57)), recipe)
    return Trainer(recipe, dataset, model, load_tokenizer(str(base / "tokenizer.json"), recipe.max_tokens))


def test_kept_tokens_and_layers_are_copied_exactly(base: Path) -> None:
    kept = [0, 1, 2, 3, 4, 7, 11, 56]
    model = from_minilm(base, kept, RECIPE)
    old, new = load_file(base / "model.safetensors"), model.bert.state_dict()
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(new.pop(words), old[words][kept])
    assert "encoder.layer.1.output.dense.weight" in new
    assert not any(name.startswith("encoder.layer.2.") for name in new)
    for name, value in new.items():
        assert torch.equal(value, old[name]), name
    assert model.config.vocab_size == len(kept)


def test_a_run_that_was_killed_gives_the_weights_of_one_that_was_not(
    base: Path, dataset: Dataset, tmp_path: Path
) -> None:
    whole = trainer_of(base, dataset)
    run(whole, tmp_path / "whole.pt")
    first = trainer_of(base, dataset)
    run(first, tmp_path / "state.pt", until=2)
    assert first.step == 2 < len(whole.plan)
    second = trainer_of(base, dataset)
    torch.manual_seed(99)  # a new process has another generator
    second.load(tmp_path / "state.pt")
    run(second, tmp_path / "state.pt")
    assert second.step == whole.step == len(whole.plan)
    for one, other in ((whole.model, second.model), (whole.average, second.average)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert any(
        not torch.equal(v, first.average.state_dict()[n]) for n, v in whole.average.state_dict().items()
    )


def test_a_state_of_another_recipe_is_refused(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    trainer_of(base, dataset).save(tmp_path / "state.pt")
    other = trainer_of(base, dataset, replace(RECIPE, learning_rate=2e-3))
    with pytest.raises(ValueError, match="another recipe"):
        other.load(tmp_path / "state.pt")


def test_training_learns_and_leaves_the_embeddings_of_words(
    base: Path, dataset: Dataset, tmp_path: Path
) -> None:
    trainer = trainer_of(base, dataset, replace(RECIPE, epochs=200, learning_rate=3e-3, teacher=0.0))
    before = trainer.model.bert.embeddings.word_embeddings.weight.clone()
    first = trainer.advance()
    run(trainer, tmp_path / "state.pt")
    trainer.step = 0
    assert trainer.advance() < 0.5 * first
    assert torch.equal(trainer.model.bert.embeddings.word_embeddings.weight, before)


def test_the_loss_is_least_where_the_right_text_stands_first() -> None:
    recipe = replace(RECIPE, teacher=0.0)
    cosines = torch.zeros(1, 3)
    right, wrong = torch.tensor([[4.0, -4.0, -4.0]]), torch.tensor([[-4.0, 4.0, -4.0]])
    assert loss_of(right, cosines, recipe) < 0.1 < loss_of(wrong, cosines, recipe)
    # Listwise cross-entropy alone would not mind this; scores have to mean something by themselves.
    assert loss_of(right + 9, cosines, recipe) > loss_of(right, cosines, recipe) + 1
    near = torch.tensor([[0.5, 0.5, 0.1]])
    taught = replace(RECIPE, pointwise=0.0, teacher=1e3)
    even = torch.tensor([[2.0, 2.0, -4.0]])
    assert loss_of(even, near, taught) < loss_of(right, near, taught)


def test_groups_hold_other_packages_texts_and_as_many_as_the_recipe_says(dataset: Dataset) -> None:
    plan = plan_batches(dataset, RECIPE)
    groups = [group for batch in plan for group in batch]
    assert sorted(g[0] for g in groups) == sorted(list(range(6)) * RECIPE.epochs)
    assert all(len(g) == len(set(g)) == 1 + RECIPE.hard + RECIPE.others for g in groups)
    assert plan == plan_batches(dataset, RECIPE)
    found = dataset.hard[0]
    assert found[0] == 5  # den of a red fox
    assert 0 not in found


def test_a_sentence_is_not_ranked_against_its_own_description() -> None:
    pairs = [Pair("red fox", "a fox of red fur that hides", "one", "debian"),
             Pair("big cat", "the cat is big", "two", "debian"),
             Pair("a fox of red fur", "that hides", "one", "sentence")]  # fmt: skip
    assert hard_texts(pairs, 3) == [[], [], []]
    assert hardest(Bm25([p.text for p in pairs]), "red fox", 1, 3) == [0]


def test_candidates_are_the_right_text_then_what_bm25_finds_then_others(dataset: Dataset) -> None:
    groups = ranking_groups(dataset.pairs, 6, 1, 2, seed=3)
    assert [g.query for g in groups] == [p.query for p in dataset.pairs]
    for group, pair in zip(groups, dataset.pairs, strict=True):
        assert group.texts[0] == pair.text
        assert len(set(group.texts)) == 4
        assert group.sources[0] == pair.group
    assert groups[0].texts[1] == "den of a red fox"
    assert groups[0].bm25[1] > 0


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [([3, 2, 1], 1), ([2, 3, 1], 1 / 2), ([1, 1, 1], 1 / 3), ([0, *[1] * 9], 1 / 10), ([0, *[1] * 10], 0)],
)
def test_reciprocal_ranks_count_ties_against_the_model(scores: list[float], wanted: float) -> None:
    assert reciprocal_rank(scores) == pytest.approx(wanted)


def test_a_published_folder_scores_as_transformers_does(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of(base, dataset)
    out = tmp_path / "out"
    save_folder(trainer.average, base / "tokenizer.json", out)
    query, text = "red fox", "a fox of red fur"
    rows = rows_of(load_tokenizer(str(out / "tokenizer.json"), 32), [(query, text), ("cat", "dog")])
    model = BertForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    alone = [float(model(**batch_of([row])).logits.detach()) for row in rows]
    assert checkpoint_logits(out)(rows).tolist() == pytest.approx(alone, abs=1e-5)
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "relevance"}
    assert all(value.dtype == torch.float16 for value in load_file(out / "model.safetensors").values())


def test_long_texts_are_cut_and_queries_are_not(base: Path) -> None:
    tokenizer = load_tokenizer(str(base / "tokenizer.json"), 8)
    ((ids, types),) = rows_of(tokenizer, [("a b", "c d e f g h")])
    assert [tokenizer.id_to_token(i) for i in ids] == ["[CLS]", "a", "b", "[SEP]", "c", "d", "e", "[SEP]"]
    assert types == [0, 0, 0, 0, 1, 1, 1, 1]


def test_rankings_are_measured_from_logits(base: Path) -> None:
    group = Group("a", ("c", "d d", "e e e"), (3.0, 2.0, 1.0), ("p", "q", "r"))
    assert bm25([group]).mrr == 1
    longest = trained(
        "longest",
        [group],
        base / "tokenizer.json",
        lambda rows: torch.tensor([1.0 * len(r[0]) for r in rows]),
    )
    assert longest.mrr == pytest.approx(1 / 3)
    assert longest.first == 0


def test_the_held_out_file_names_the_right_text_of_each_query(tmp_path: Path) -> None:
    write_heldout([Group('a "b"', ("c", "d\te"), (1.0, 0.0), ("p", "q"))], tmp_path / "heldout.tsv")
    assert (tmp_path / "heldout.tsv").read_text() == (
        'query\ttext\tlabel\tsource\n"a ""b"""\tc\t1\tp\n"a ""b"""\t"d\te"\t0\tq\n'
    )


def test_logits_come_back_in_the_order_of_the_rows(base: Path, dataset: Dataset) -> None:
    trainer = trainer_of(base, dataset)
    rows = rows_of(trainer.tokenizer, [("a", "b c d e f"), ("a", "b"), ("a", "b c")])
    together = logits_of(trainer.model, rows, batch=2)
    assert together.tolist() == pytest.approx([float(logits_of(trainer.model, [r])) for r in rows], abs=1e-5)

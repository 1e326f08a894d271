"""What the peers compute, in this environment, which has all that it takes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.repository.inventory import read_inventory
from loadtest.bench.peers.servers import PROGRAMS
from loadtest.bench.rerank import PairsInProcess, make_questions
from loadtest.bench.sentences import read_sentences
from tests.support.bundled import bundled_repository
from tests.support.rerankers import RERANKER_TOKENS, reranker_repository
from tests.support.texts import CHECKPOINT

LABELS = ["NEGATIVE", "POSITIVE"]
MODULES = ("onnx_model", "classifier", "reranker")
Load = Callable[..., Any]
"""An object of a class of the programs: its module and name, the files, the labels and more of ``PEER``."""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """The programs' modules, which import each other by name; forgotten after the test."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def loaded(
        place: str, model: Path | None, tokenizer: Path, labels: list[str], max_tokens: int, **settings: int
    ) -> Any:
        described = {
            "model": model and str(model),
            "tokenizer": str(tokenizer),
            "labels": labels,
            "max_tokens": max_tokens,
            **settings,
        }
        monkeypatch.setenv("PEER", json.dumps(described))
        module, _, name = place.partition(".")
        found = getattr(importlib.import_module(module), name)()
        for each in MODULES:
            if each in sys.modules:
                monkeypatch.setitem(sys.modules, each, sys.modules[each])
        return found

    return loaded


def _classifier(load: Load, model: Path | None, **settings: int) -> Any:
    (tokenizer,) = bundled_repository().glob("tokenizer_*/1/tokenizer.json")
    return load("classifier.Classifier", model, tokenizer, LABELS, 512, **settings)


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({}, [[1], [4], [0], [3], [2]]),
        ({"group": 16}, [[1], [4], [0], [3], [2]]),
        ({"group": 16, "padding": 4}, [[1, 4, 0], [3, 2]]),
        ({"group": 2, "padding": 4}, [[1, 4], [0, 3], [2]]),
        ({"group": 16, "padding": 100}, [[1, 4, 0, 3, 2]]),
    ],
)
def test_texts_of_like_length_are_computed_together(
    load: Load, settings: dict[str, int], groups: list[list[int]]
) -> None:
    (tokenizer,) = bundled_repository().glob("tokenizer_*/1/tokenizer.json")
    model = load("onnx_model.OnnxModel", None, tokenizer, LABELS, 512, **settings)
    assert list(model.groups([9, 5, 14, 10, 6])) == groups


@pytest.mark.parametrize("settings", [{}, {"all_cores": 1}])
def test_groups_give_the_same_answers_as_texts_alone_in_the_order_of_asking(
    load: Load, settings: dict[str, int]
) -> None:
    (model,) = bundled_repository().glob("*_encoder_int8/1/model.onnx")
    texts = read_sentences(CHECKPOINT / "heldout.tsv", 24)
    alone = _classifier(load, model).classify(texts)
    together = _classifier(load, model, group=16, padding=4, **settings).classify(texts)
    assert len({round(answer[1]["score"], 3) for answer in alone}) > 8, (
        "different texts have different scores"
    )
    for one, other in zip(alone, together, strict=True):
        assert [each["label"] for each in other] == LABELS
        assert other[1]["score"] == pytest.approx(one[1]["score"], abs=1e-4)


def test_the_null_model_answers_a_constant(load: Load) -> None:
    answers = _classifier(load, None, group=16).classify(["good", "bad"])
    assert answers == 2 * [[{"label": label, "score": 0.5} for label in LABELS]]


@pytest.mark.parametrize(
    "settings", [{}, {"group": 8, "padding": 4}, {"group": 8, "padding": 4, "all_cores": 1}]
)
def test_the_scores_of_a_reranker_are_those_of_the_bench_in_process_request_by_request(
    load: Load, tmp_path: Path, settings: dict[str, int]
) -> None:
    repository = reranker_repository(tmp_path)
    served = next(each for each in read_inventory(repository) if len(each.labels) == 1)
    onnx, tokenizer = served.weights_file(repository), served.tokenizer_file(repository)
    words = read_sentences(CHECKPOINT / "heldout.tsv", 24)
    # Half of the contexts are longer than the model reads beside a query.
    questions = make_questions(
        tokenizer, ["a cat sat on my mat", "the dog ran far", *words], 3, 9, RERANKER_TOKENS
    )
    local = PairsInProcess(onnx, tokenizer, RERANKER_TOKENS)
    try:
        wanted = [local.loop(question) for question in questions]
    finally:
        local.close()
    reranker = load("reranker.Reranker", onnx, tokenizer, list(served.labels), RERANKER_TOKENS, **settings)
    found = reranker.score_all([(each.query, each.contexts) for each in questions])
    assert len({round(score, 3) for each in wanted for score in each.values()}) > 5
    for question, scores, each in zip(questions, wanted, found, strict=True):
        assert dict(enumerate(each["scores"])) == pytest.approx(scores, abs=1e-6)
        assert reranker.score(question.query, question.contexts)["scores"] == pytest.approx(
            each["scores"], abs=1e-6
        )

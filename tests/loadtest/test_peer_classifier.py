"""What the peers compute, in this environment, which has all that it takes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench.peers.servers import PROGRAMS
from loadtest.bench.sentences import read_sentences
from tests.support.bundled import bundled_repository
from tests.support.texts import CHECKPOINT

LABELS = ["NEGATIVE", "POSITIVE"]


def _classifier(monkeypatch: pytest.MonkeyPatch, model: Path | None, **settings: int) -> Any:
    (tokenizer,) = bundled_repository().glob("tokenizer_*/1/tokenizer.json")
    described = {
        "model": model and str(model),
        "tokenizer": str(tokenizer),
        "labels": LABELS,
        "max_tokens": 512,
        **settings,
    }
    monkeypatch.setenv("PEER", json.dumps(described))
    spec = importlib.util.spec_from_file_location("peer_classifier", PROGRAMS / "classifier.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Classifier()


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
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], groups: list[list[int]]
) -> None:
    rows = [[7] * length for length in (9, 5, 14, 10, 6)]
    assert list(_classifier(monkeypatch, None, **settings)._groups(rows)) == groups


def test_groups_give_the_same_answers_as_texts_alone_in_the_order_of_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (model,) = bundled_repository().glob("*_encoder_int8/1/model.onnx")
    texts = read_sentences(CHECKPOINT / "heldout.tsv", 24)
    alone = _classifier(monkeypatch, model).classify(texts)
    together = _classifier(monkeypatch, model, group=16, padding=4).classify(texts)
    assert len({round(answer[1]["score"], 3) for answer in alone}) > 8, (
        "different texts have different scores"
    )
    for one, other in zip(alone, together, strict=True):
        assert [each["label"] for each in other] == LABELS
        assert other[1]["score"] == pytest.approx(one[1]["score"], abs=1e-4)


def test_the_null_model_answers_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = _classifier(monkeypatch, None, group=16).classify(["good", "bad"])
    assert answers == 2 * [[{"label": label, "score": 0.5} for label in LABELS]]

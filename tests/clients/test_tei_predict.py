"""Hugging Face's inference client, unmodified, before TEI's ``/predict`` and the real Triton."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clients.inference_clients import Target, label_of, results_of

WITHOUT_NODE = True

Scores = list[list[float]]


@pytest.fixture(scope="module")
def found(inference_target: Target) -> dict[str, Any]:
    return results_of("tei_predict", inference_target)


def test_the_best_label_has_the_score_of_the_workers_ai_api(
    found: dict[str, Any], http_scores: Scores
) -> None:
    assert [label for label, _ in found["labels"]] == [label_of(row) for row in http_scores]
    scores = [score for _, score in found["labels"]]
    assert scores == pytest.approx([max(row) for row in http_scores])


def test_a_batch_has_the_scores_of_single_texts_best_first(
    found: dict[str, Any], http_scores: Scores
) -> None:
    for entries, row in zip(found["batch"], http_scores, strict=True):
        assert entries[0]["label"] == label_of(row)
        assert [entry["score"] for entry in entries] == pytest.approx(sorted(row, reverse=True))


def test_refusals_show_the_gateway_s_message(found: dict[str, Any]) -> None:
    assert {name: status for name, (status, _) in found["refused"].items()} == {
        "wrong token": 401,
        "empty": 400,
    }

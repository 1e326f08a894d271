"""From ensemble parameters to models."""

from __future__ import annotations

import json
import logging

import pytest

from gateway.domain.catalogue import Catalogue, Ensemble, MalformedEntry, parse_model
from gateway.domain.errors import BackendUnavailable, NoSuchModel
from gateway.domain.scores import ProblemType
from gateway.domain.tasks import Task

GOOD = {
    "tritonflare.name": "@cf/x/y",
    "tritonflare.version": "3",
    "tritonflare.task": "text-classification",
    "tritonflare.labels": '["NEGATIVE", "POSITIVE"]',
    "tritonflare.max_tokens": "512",
    "tritonflare.precision": "int8",
    "tritonflare.target": "cpu",
    "tritonflare.problem_type": "single_label_classification",
    "tritonflare.checkpoint": "some/checkpoint",
    "tritonflare.description": "A description.",
    "tritonflare.created_at": "2026-11-22 00:00:00.000",
    "tritonflare.weights_sha256": "w",
    "tritonflare.tokenizer_sha256": "t",
    "tritonflare.model_sha256": "m",
    "tritonflare.of_a_later_version": "ignored",
    "other": "ignored",
}


def ensemble(ensemble_name: str = "e", /, **changes: str) -> Ensemble:
    return Ensemble(ensemble_name, GOOD | {f"tritonflare.{key}": value for key, value in changes.items()})


def test_every_parameter_arrives_in_the_model() -> None:
    model = parse_model(ensemble())
    assert (model.name, model.ensemble, model.max_tokens) == ("@cf/x/y", "e", 512)
    assert model.labels == ("NEGATIVE", "POSITIVE")
    assert model.problem_type is ProblemType.SINGLE_LABEL
    assert model.task is Task.CLASSIFICATION
    for field in [
        "version",
        "precision",
        "target",
        "checkpoint",
        "description",
        "created_at",
        "weights_sha256",
        "tokenizer_sha256",
        "model_sha256",
    ]:
        assert getattr(model, field) == GOOD[f"tritonflare.{field}"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"labels": ""},
        {"labels": "NEGATIVE"},
        {"labels": "[]"},
        {"labels": "{}"},
        {"labels": "[1,2]"},
        {"labels": '["a",""]'},
        {"labels": '["a","a"]'},
        {"labels": '["a",["b"]]'},
        {"labels": "[" * 100_000},
        {"max_tokens": ""},
        {"max_tokens": "0"},
        {"max_tokens": "-1"},
        {"max_tokens": "5e2"},
        {"max_tokens": "²"},
        {"max_tokens": "9" * 5000},
        {"problem_type": ""},
        {"problem_type": "regression"},
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(MalformedEntry):
        parse_model(ensemble(**changes))


def test_labels_need_not_be_two_or_english() -> None:
    labels = ["négatif", "neutre", "positif"]
    assert parse_model(ensemble(labels=json.dumps(labels))).labels == tuple(labels)


def test_malformed_entries_are_left_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    catalogue = Catalogue()
    reported = [ensemble("z", max_tokens="many"), ensemble("good"), Ensemble("nameless", {"other": "x"})]
    catalogue.replace(reported)
    catalogue.replace(reported)
    assert [model.ensemble for model in catalogue] == ["good"]
    assert [record.getMessage() for record in caplog.records] == [
        "ensemble z is not served: tritonflare.max_tokens is not a positive number"
    ]


def test_of_two_with_one_name_the_first_by_ensemble_name_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    catalogue = Catalogue()
    for reported in ([ensemble("b"), ensemble("a")], [ensemble("a"), ensemble("b")]):
        catalogue.replace(reported)
        assert catalogue.find("@cf/x/y").ensemble == "a"
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "ensemble b is not served: a is called @cf/x/y too"
    ]


def test_an_unknown_name_is_no_such_model_only_when_models_are_known() -> None:
    catalogue = Catalogue()
    with pytest.raises(BackendUnavailable):
        catalogue.find("@cf/x/y")
    catalogue.replace([ensemble()])
    assert catalogue.find("@cf/x/y") in list(catalogue)
    with pytest.raises(NoSuchModel, match="No such model @cf/x/z or task"):
        catalogue.find("@cf/x/z")
    assert len(catalogue) == 1
    assert "@cf/x/y" in catalogue

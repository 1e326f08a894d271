"""From ensemble parameters to models."""

from __future__ import annotations

import json
import logging

import pytest

from gateway.domain.catalogue import Catalogue, Ensemble, MalformedEntry, parse_model, version_id
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


def test_a_version_has_the_number_and_a_digest_of_all_but_number_and_date() -> None:
    model = parse_model(ensemble())
    number, _, digest = model.version_id.partition("-")
    assert number == "3"
    same = {"version": "4", "created_at": "2027-01-01 00:00:00.000"}
    assert parse_model(ensemble(**same)).version_id == f"4-{digest}"
    assert version_id(GOOD | {"other": "changed"}) == model.version_id
    others = {
        parse_model(ensemble(**change)).version_id
        for change in ({"labels": '["A", "B"]'}, {"model_sha256": "n"}, {"of_a_later_version": "changed"})
    }
    assert len(others | {model.version_id}) == 4


@pytest.mark.parametrize("number", ["", "3\r\nset-cookie: a=b", "\u0663", "9" * 50])
def test_a_number_that_is_none_does_not_get_into_the_header(number: str) -> None:
    assert parse_model(ensemble(version=number)).version_id.startswith("0-")


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
        {"special_tokens": "-1"},
        {"special_tokens": "two"},
        {"special_tokens": "512"},
        {"special_tokens": "9" * 5000},
        {"problem_type": ""},
        {"problem_type": "regression"},
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(MalformedEntry):
        parse_model(ensemble(**changes))


def test_a_model_that_was_exported_before_windows_has_no_special_tokens() -> None:
    assert parse_model(ensemble()).special_tokens is None
    assert parse_model(ensemble(special_tokens="0")).special_tokens == 0
    assert parse_model(ensemble(special_tokens="2")).special_tokens == 2


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


def test_a_model_answers_to_the_aliases_that_it_brings_and_to_those_of_the_settings() -> None:
    catalogue = Catalogue({"mine": "@cf/x/y"})
    catalogue.replace([ensemble(aliases='["@cf/x/other", "old"]')])
    (model,) = catalogue
    assert model.aliases == ("@cf/x/other", "old")
    for name in ("@cf/x/y", "@cf/x/other", "old", "mine"):
        assert catalogue.find(name) is model
    for name in ("mine", "@cf/x/other", "@cf--x--other", "@cf--x--y", "e"):
        assert catalogue.find_by_any_name(name) is model
    with pytest.raises(NoSuchModel):
        catalogue.find("@cf--x--other")
    assert "mine" not in catalogue  # it counts models, not names
    catalogue.replace([ensemble()])
    with pytest.raises(NoSuchModel):
        catalogue.find("old")
    assert catalogue.find("mine").name == "@cf/x/y"


@pytest.mark.parametrize("known", ["nonomni-distilbert-sst-2-int8", "omni-distilbert-sst-2-int8"])
def test_cloudflares_other_names_of_the_default_model_are_known(known: str) -> None:
    alias = f"@cf/huggingface/{known}"
    catalogue = Catalogue()
    catalogue.replace([ensemble()])
    with pytest.raises(NoSuchModel):
        catalogue.find(alias)
    catalogue.replace([ensemble(), ensemble("d", name="@cf/huggingface/distilbert-sst-2-int8")])
    assert catalogue.find(alias).ensemble == "d"
    # A model of that name, and an alias that says otherwise, count before it.
    catalogue.replace(
        [ensemble("c", name=alias), ensemble("d", name="@cf/huggingface/distilbert-sst-2-int8")]
    )
    assert catalogue.find(alias).ensemble == "c"
    catalogue = Catalogue({alias: "@cf/x/y"})
    catalogue.replace([ensemble(), ensemble("d", name="@cf/huggingface/distilbert-sst-2-int8")])
    assert catalogue.find(alias).ensemble == "e"


def test_an_alias_never_shadows_another_model_and_conflicts_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reported = [
        ensemble("a", name="one", aliases='["two", "b", "both", "one"]'),
        ensemble("b", name="two", aliases='["both", "c--d", "given"]'),
        ensemble("c", name="c/d"),
    ]
    catalogue = Catalogue({"two": "one", "given": "one", "gone": "nobody", "mine": "two"})
    for _ in range(2):
        catalogue.replace(reported)
    found = {name: catalogue.find_by_any_name(name).name for name in ("one", "two", "b", "both", "c--d")}
    assert found == {"one": "one", "two": "two", "b": "two", "both": "one", "c--d": "c/d"}
    assert [catalogue.find(name).name for name in ("given", "mine", "both")] == ["one", "two", "one"]
    for name in ("b", "gone"):
        with pytest.raises(NoSuchModel):
            catalogue.find(name)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "alias b of one is not served: it means two",
        "alias both of two is not served: it means one",
        "alias c--d of two is not served: it means c/d",
        "alias given of two is not served: it means one",
        "alias gone is not served: no model is called nobody",
        "alias two of one is not served: it means two",
    ]


@pytest.mark.parametrize("aliases", ["old", "{}", '["a", 1]', '["a", ""]', '["a", "a"]', '["a\\nb"]'])
def test_aliases_that_make_no_sense_are_refused(aliases: str) -> None:
    with pytest.raises(MalformedEntry, match=r"tritonflare\.aliases"):
        parse_model(ensemble(aliases=aliases))
    assert parse_model(ensemble(aliases="[]")).aliases == ()

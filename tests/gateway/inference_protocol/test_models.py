"""Finding and describing models."""

from __future__ import annotations

import pytest

from gateway.domain.catalogue import Catalogue, Ensemble
from gateway.domain.errors import BackendUnavailable, NoSuchModel, NoSuchVersion
from gateway.domain.health import ModelHealth
from gateway.inference_protocol.models import ModelDirectory
from gateway.telemetry.record import RequestRecord
from tests.gateway.domain.test_catalogue import GOOD

NAME = GOOD["tritonflare.name"]
NAMES = [NAME, NAME.replace("/", "--"), "cf-ensemble"]


def directory(**parameters: str) -> ModelDirectory:
    catalogue = Catalogue()
    catalogue.replace([Ensemble("cf-ensemble", GOOD | parameters, max_batch_size=8)])
    return ModelDirectory(catalogue, ModelHealth(1), 100)


def record() -> RequestRecord:
    return RequestRecord("POST", "ray")


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_found_by_each_of_its_names_and_labelled_with_the_public_one(name: str) -> None:
    found = record()
    assert directory().find(name, "", found).ensemble == "cf-ensemble"
    assert found.model == NAME


@pytest.mark.parametrize("name", ["", "cf", NAME.upper(), NAME + "/", "cf-ensemble_encoder"])
def test_other_names_are_unknown_and_the_label_of_their_requests_is_bounded(name: str) -> None:
    asked = record()
    with pytest.raises(NoSuchModel):
        directory().find(name, "", asked)
    assert asked.model == "unknown"


def test_without_any_model_it_is_the_backend_that_is_unavailable() -> None:
    with pytest.raises(BackendUnavailable):
        ModelDirectory(Catalogue(), ModelHealth(1), 100).find(NAME, "", record())


def test_only_the_version_that_is_served_is_found() -> None:
    models = directory()
    assert models.version(models.find(NAME, "3", record())) == "3"
    for other in ("1", "03", "latest", "9" * 10_000):
        with pytest.raises(NoSuchVersion) as caught:
            models.find(NAME, other, record())
        assert "version 3 is served" in caught.value.message
        assert len(caught.value.message) < 400
    unversioned = directory(**{"tritonflare.version": ""})
    assert unversioned.version(unversioned.find(NAME, "1", record())) == "1"


def test_a_description_has_the_name_that_the_client_used_and_all_it_has_to_know() -> None:
    models = directory()
    model = models.find(NAME, "", record())
    described = models.describe("alias", model)
    assert (described.name, described.version, described.max_batch_size) == ("alias", "3", 100)
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in described.inputs] == [
        ("TEXT", "BYTES", (-1, 1))
    ]
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in described.outputs] == [
        ("logits", "FP32", (-1, 2)),
        ("probabilities", "FP32", (-1, 2)),
        ("label", "BYTES", (-1, 1)),
        ("token_count", "INT32", (-1, 1)),
    ]
    assert described.parameters["labels"] == '["NEGATIVE","POSITIVE"]'
    assert described.parameters["name"] == NAME


def test_a_reranker_is_described_with_both_inputs_and_one_label() -> None:
    models = directory(**{"tritonflare.task": "rerank", "tritonflare.labels": '["LABEL_0"]'})
    described = models.describe(NAME, models.find(NAME, "", record()))
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in described.inputs] == [
        ("QUERY", "BYTES", (-1, 1)),
        ("TEXT", "BYTES", (-1, 1)),
    ]
    assert [tensor.shape for tensor in described.outputs] == [(-1, 1)] * 4
    assert (described.parameters["task"], described.parameters["labels"]) == ("rerank", '["LABEL_0"]')


def test_a_model_is_ready_once_it_has_answered() -> None:
    catalogue, health = Catalogue(), ModelHealth(1)
    catalogue.replace([Ensemble("cf-ensemble", GOOD, max_batch_size=8)])
    models = ModelDirectory(catalogue, health, 100)
    (model,) = catalogue
    assert not models.is_ready(model)
    assert models.index(only_ready=True) == []
    assert [(entry.state, entry.reason != "") for entry in models.index(only_ready=False)] == [
        ("UNAVAILABLE", True)
    ]
    health.answered(model)
    assert models.is_ready(model)
    assert [(entry.name, entry.state) for entry in models.index(only_ready=True)] == [(NAME, "READY")]


def test_an_index_without_any_model_is_an_error() -> None:
    models = ModelDirectory(Catalogue(), ModelHealth(1), 100)
    with pytest.raises(BackendUnavailable):
        models.index(only_ready=False)

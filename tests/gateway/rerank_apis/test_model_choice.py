"""Which model a request means."""

from __future__ import annotations

from functools import partial

import pytest

from gateway.domain.catalogue import Catalogue, Ensemble
from gateway.domain.errors import BackendUnavailable, NoModelForTask, NoSuchModel
from gateway.domain.tasks import Task
from gateway.rerank_apis.model_choice import ModelChoice
from gateway.telemetry.record import RequestRecord
from tests.gateway.domain.test_catalogue import GOOD

RERANKER = {"tritonflare.task": "rerank", "tritonflare.labels": '["LABEL_0"]'}


def choice(*models: tuple[str, dict[str, str]]) -> ModelChoice:
    catalogue = Catalogue()
    catalogue.replace(
        Ensemble(name, GOOD | {"tritonflare.name": f"@cf/acme/{name}"} | parameters)
        for name, parameters in models
    )
    return ModelChoice(catalogue)


def record() -> RequestRecord:
    return RequestRecord("POST", "ray")


BOTH = choice(("mood", {}), ("best", RERANKER))


@pytest.mark.parametrize("name", ["@cf/acme/best", "@cf--acme--best", "best", "", None])
def test_the_only_reranker_is_found_by_each_of_its_names_and_without_one(name: str | None) -> None:
    found = record()
    assert BOTH.find(found, name, Task.RERANK).ensemble == "best"
    assert found.model == "@cf/acme/best"


def test_without_a_name_the_task_decides() -> None:
    assert BOTH.find(record(), None, Task.CLASSIFICATION).ensemble == "mood"


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [("mood", Task.RERANK, "not a reranker"), ("best", Task.CLASSIFICATION, "not a classifier")],
)
def test_a_model_for_another_task_is_refused(name: str, task: Task, message: str) -> None:
    with pytest.raises(NoModelForTask, match=message):
        BOTH.find(record(), name, task)


def test_an_unknown_name_is_no_request_for_the_only_model() -> None:
    asked = record()
    with pytest.raises(NoSuchModel):
        BOTH.find(asked, "rerank-v3.5", Task.RERANK)
    assert asked.model == "unknown"


def test_of_several_models_one_has_to_be_named() -> None:
    several = choice(("best", RERANKER), ("better", RERANKER))
    with pytest.raises(NoModelForTask, match="as 'model': @cf/acme/best, @cf/acme/better"):
        several.find(record(), None, Task.RERANK)
    assert several.find(record(), "better", Task.RERANK).ensemble == "better"


def test_a_task_without_a_model_is_told_from_a_server_without_any() -> None:
    with pytest.raises(NoModelForTask, match="No reranker is served"):
        choice(("mood", {})).find(record(), None, Task.RERANK)
    for ask in (choice().any, partial(choice().find, task=Task.RERANK)):
        with pytest.raises(BackendUnavailable):
            ask(record(), None)


def test_a_question_about_no_model_in_particular_is_about_the_reranker_if_there_is_one() -> None:
    assert BOTH.any(record(), None).ensemble == "best"
    assert BOTH.any(record(), "mood").ensemble == "mood"
    assert choice(("mood", {})).any(record(), None).ensemble == "mood"

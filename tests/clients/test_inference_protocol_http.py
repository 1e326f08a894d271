"""tritonclient.http, unmodified, in a process of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.clients.checks import MODEL
from tests.support.clients.inference_clients import (
    ENSEMBLE,
    PATH_SAFE,
    Target,
    check_classes,
    check_each,
    check_outputs,
    check_selected,
    results_of,
)

WITHOUT_NODE = True
ENCODINGS = ["binary", "JSON", "binary in, JSON out", "JSON in, binary out"]
COMPRESSIONS = [f"{name} {which}" for name in ("gzip", "deflate") for which in ("in", "out", "JSON")]

Scores = list[list[float]]


@pytest.fixture(scope="module")
def answers(inference_target: Target) -> dict[str, Any]:
    """Everything that the synchronous client can ask."""
    return results_of("triton_http", inference_target.calling(PATH_SAFE))


def test_each_text_has_the_scores_of_the_workers_ai_api(answers: dict[str, Any], http_scores: Scores) -> None:
    check_each(answers["scores"], http_scores)


@pytest.mark.parametrize("way", [*ENCODINGS, *COMPRESSIONS])
def test_tensors_come_and_go_in_every_encoding(
    answers: dict[str, Any], http_scores: Scores, way: str
) -> None:
    check_outputs(answers["encodings"][way], http_scores)


def test_only_the_requested_outputs_come_in_their_order(answers: dict[str, Any], http_scores: Scores) -> None:
    check_selected(answers["selected"], PATH_SAFE, http_scores)


def test_the_best_classes_come_with_value_index_and_label(
    answers: dict[str, Any], http_scores: Scores
) -> None:
    for count, outputs in enumerate(answers["classes"], 1):
        check_classes(outputs["probabilities"], http_scores, count)


def test_the_server_and_its_model_are_described(answers: dict[str, Any]) -> None:
    found = answers["descriptions"]
    assert (found["live"], found["ready"], found["model ready"]) == (True, True, True)
    assert found["server"]["name"] == "tritonflare"
    assert {"binary_tensor_data", "classification"} <= set(found["server"]["extensions"])
    assert (found["model"]["name"], found["model"]["versions"]) == (PATH_SAFE, ["1"])
    assert found["model"]["inputs"] == [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}]
    assert [each["name"] for each in found["model"]["outputs"]] == [
        "logits",
        "probabilities",
        "label",
        "token_count",
    ]


def test_the_configuration_and_the_repository(answers: dict[str, Any]) -> None:
    config = answers["descriptions"]["config"]
    assert (config["name"], [each["name"] for each in config["input"]]) == (PATH_SAFE, ["TEXT"])
    assert json.loads(config["parameters"]["labels"]["string_value"]) == ["NEGATIVE", "POSITIVE"]
    (model,) = answers["descriptions"]["index"]
    assert (model["name"], model["version"], model["state"]) == (MODEL, "1", "READY")


@pytest.mark.parametrize("name", [ENSEMBLE, MODEL])
def test_other_names_of_the_model(inference_target: Target, http_scores: Scores, name: str) -> None:
    found = results_of("triton_http", inference_target.calling(name), "scores", "descriptions")
    check_each(found["scores"], http_scores)
    assert found["descriptions"]["model ready"]
    assert found["descriptions"]["model"]["name"] == name


def test_the_asynchronous_client(inference_target: Target, http_scores: Scores) -> None:
    found = results_of("triton_http_aio", inference_target.calling(PATH_SAFE))
    check_each(found["scores"], http_scores)


def test_refusals_have_a_status_and_a_message(answers: dict[str, Any]) -> None:
    assert {name: status for name, (status, _) in answers["refused"].items()} == {
        "no token": "401",
        "wrong token": "401",
        "unknown model": "404",
        "unknown version": "404",
        "unknown output": "400",
        "empty text": "400",
        "metadata of an unknown model": "404",
        "two columns": "400",
        "input in shared memory": "400",
        "system shared memory": "404",
        "status of CUDA shared memory": "404",
        "load": "404",
        "unload": "404",
        "statistics": "404",
        "trace settings": "404",
        "log settings": "404",
    }
    assert all(message for _, message in answers["refused"].values())


def test_tls(secure_target: Target, http_scores: Scores) -> None:
    found = results_of("triton_http", secure_target.calling(PATH_SAFE), "scores")
    check_each(found["scores"], http_scores)

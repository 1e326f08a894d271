"""tritonclient.grpc, gRPC's reflection and its health service, unmodified, each in a process of its own."""

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
SERVICE = "inference.GRPCInferenceService"

Scores = list[list[float]]


@pytest.fixture(scope="module")
def answers(inference_target: Target) -> dict[str, Any]:
    """Everything that the synchronous client can ask."""
    return results_of("triton_grpc", inference_target)


@pytest.mark.parametrize("part", ["scores", "callbacks"])
def test_each_text_has_the_scores_of_the_http_api(
    answers: dict[str, Any], http_scores: Scores, part: str
) -> None:
    check_each(answers[part], http_scores)


def test_many_texts_in_one_request(answers: dict[str, Any], http_scores: Scores) -> None:
    check_outputs(answers["batch"], http_scores)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(answers: dict[str, Any], http_scores: Scores, algorithm: str) -> None:
    check_outputs(answers["compressed"][algorithm], http_scores)


def test_texts_in_typed_contents(answers: dict[str, Any], http_scores: Scores) -> None:
    assert answers["typed"]["id"] == "typed"
    check_outputs(answers["typed"]["outputs"], http_scores)


def test_only_the_requested_outputs_come_in_their_order(answers: dict[str, Any], http_scores: Scores) -> None:
    check_selected(answers["selected"], MODEL, http_scores)


def test_the_best_classes_come_with_value_index_and_label(
    answers: dict[str, Any], http_scores: Scores
) -> None:
    for count, outputs in enumerate(answers["classes"], 1):
        check_classes(outputs["probabilities"], http_scores, count)


def test_the_server_and_its_model_are_described(answers: dict[str, Any]) -> None:
    found = answers["descriptions"]
    assert (found["live"], found["ready"], found["model ready"]) == (True, True, True)
    assert found["server"]["name"] == "tritonflare"
    assert {"classification", "model_configuration"} <= set(found["server"]["extensions"])
    assert found["model"]["name"] == MODEL
    assert found["model"]["versions"] == ["1"]
    assert found["model"]["inputs"] == [{"name": "TEXT", "datatype": "BYTES", "shape": ["-1", "1"]}]
    assert {each["name"]: (each["datatype"], each["shape"]) for each in found["model"]["outputs"]} == {
        "logits": ("FP32", ["-1", "2"]),
        "probabilities": ("FP32", ["-1", "2"]),
        "label": ("BYTES", ["-1", "1"]),
        "token_count": ("INT32", ["-1", "1"]),
    }


def test_the_configuration_has_the_labels_in_order(answers: dict[str, Any]) -> None:
    config = answers["descriptions"]["config"]["config"]
    assert config["max_batch_size"] > 1
    assert [each["name"] for each in config["input"]] == ["TEXT"]
    labels = config["parameters"]["labels"]["string_value"]
    assert json.loads(labels) == ["NEGATIVE", "POSITIVE"]


def test_the_repository_lists_the_model_as_ready(answers: dict[str, Any]) -> None:
    (model,) = answers["descriptions"]["index"]["models"]
    assert (model["name"], model["version"], model["state"]) == (MODEL, "1", "READY")


@pytest.mark.parametrize("name", [PATH_SAFE, ENSEMBLE])
def test_other_names_of_the_model(inference_target: Target, http_scores: Scores, name: str) -> None:
    found = results_of("triton_grpc", inference_target.calling(name), "batch", "descriptions")
    check_outputs(found["batch"], http_scores)
    assert found["descriptions"]["model"]["name"] == name


def test_the_asynchronous_client(inference_target: Target, http_scores: Scores) -> None:
    found = results_of("triton_grpc_aio", inference_target)
    check_each(found["scores"], http_scores)
    check_each(found["stream"], http_scores)


@pytest.fixture(scope="module")
def streamed(inference_target: Target) -> dict[str, Any]:
    return results_of("triton_grpc_stream", inference_target)


def test_each_text_of_a_stream_has_the_scores_of_the_http_api(
    streamed: dict[str, Any], http_scores: Scores
) -> None:
    check_each(streamed["scores"], http_scores)


def test_the_only_response_to_a_request_is_marked_as_final(
    streamed: dict[str, Any], http_scores: Scores
) -> None:
    check_each(streamed["until final"], http_scores[:1])


def test_a_stream_goes_on_after_an_error(streamed: dict[str, Any]) -> None:
    before, error, after = streamed["error in between"]
    assert before == after == MODEL
    assert "no-such-model" in error


def test_refusals_have_the_protocol_s_status(inference_target: Target) -> None:
    refused = results_of("triton_grpc_errors", inference_target)["refused"]
    assert {name: code for name, (code, _) in refused.items()} == {
        "no token": "UNAUTHENTICATED",
        "wrong token": "UNAUTHENTICATED",
        "metadata without a token": "UNAUTHENTICATED",
        "unknown model": "NOT_FOUND",
        "metadata of an unknown model": "NOT_FOUND",
        "config of an unknown model": "NOT_FOUND",
        "unknown version": "NOT_FOUND",
        "unknown input": "INVALID_ARGUMENT",
        "unknown output": "INVALID_ARGUMENT",
        "two inputs": "INVALID_ARGUMENT",
        "two columns": "INVALID_ARGUMENT",
        "three dimensions": "INVALID_ARGUMENT",
        "numbers": "INVALID_ARGUMENT",
        "empty text": "INVALID_ARGUMENT",
        "input in shared memory": "INVALID_ARGUMENT",
        "system shared memory": "UNIMPLEMENTED",
        "status of shared memory": "UNIMPLEMENTED",
        "CUDA shared memory": "UNIMPLEMENTED",
        "load": "UNIMPLEMENTED",
        "unload": "UNIMPLEMENTED",
        "statistics": "UNIMPLEMENTED",
        "trace settings": "UNIMPLEMENTED",
        "log settings": "UNIMPLEMENTED",
    }
    assert all(message for _, message in refused.values())


def test_tls(secure_target: Target, http_scores: Scores) -> None:
    found = results_of("triton_grpc", secure_target, "descriptions", "batch")
    assert found["descriptions"]["live"]
    check_outputs(found["batch"], http_scores)


def test_reflection_is_enough_to_call_the_model(inference_target: Target, http_scores: Scores) -> None:
    found = results_of("reflection", inference_target, "services", "scores")
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(
        found["services"]["services"]
    )
    assert {"ModelInfer", "ModelStreamInfer", "ServerReady"} <= set(found["services"]["methods"])
    assert found["scores"] == http_scores


def test_probes_of_kubernetes_need_no_token(inference_target: Target) -> None:
    found = results_of("health", inference_target)
    assert found == {
        "check": {"": "SERVING", SERVICE: "SERVING", "no.such.Service": "NOT_FOUND"},
        "watch": "SERVING",
    }

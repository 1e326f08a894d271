"""KServe's own inference clients, unmodified, in a process of their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clients.inference_clients import (
    PATH_SAFE,
    Target,
    check_each,
    check_outputs,
    results_of,
)

WITHOUT_NODE = True

Scores = list[list[float]]


@pytest.fixture(scope="module")
def over_grpc(inference_target: Target) -> dict[str, Any]:
    return results_of("kserve_grpc", inference_target)


@pytest.fixture(scope="module")
def over_http(inference_target: Target) -> dict[str, Any]:
    return results_of("kserve_rest", inference_target.calling(PATH_SAFE))


@pytest.mark.parametrize("transport", ["over_grpc", "over_http"])
def test_scores_are_those_of_the_workers_ai_api(
    request: pytest.FixtureRequest, http_scores: Scores, transport: str
) -> None:
    found: dict[str, Any] = request.getfixturevalue(transport)
    check_each(found["scores"], http_scores)
    check_outputs(found["batch"]["outputs"], http_scores)
    assert found["batch"]["id"] == "request-7"


@pytest.mark.parametrize("transport", ["over_grpc", "over_http"])
def test_the_server_and_the_model_are_ready(request: pytest.FixtureRequest, transport: str) -> None:
    found: dict[str, Any] = request.getfixturevalue(transport)
    assert found["health"] == {"live": True, "ready": True, "model ready": True}


def test_refusals_over_grpc(over_grpc: dict[str, Any]) -> None:
    assert {name: code for name, (code, _) in over_grpc["refused"].items()} == {
        "no token": "UNAUTHENTICATED",
        "wrong token": "UNAUTHENTICATED",
        "unknown model": "NOT_FOUND",
        "wrong shape": "INVALID_ARGUMENT",
    }


def test_refusals_over_http_show_the_gateway_s_message(over_http: dict[str, Any]) -> None:
    refused = over_http["refused"]
    assert {name: status for name, (status, _) in refused.items()} == {
        "no token": "401",
        "wrong token": "401",
        "unknown model": "404",
    }
    assert "no-such-model" in refused["unknown model"][1].partition("'404")[0]


def test_tls(secure_target: Target, http_scores: Scores) -> None:
    found = results_of("kserve_grpc", secure_target, "scores")
    check_each(found["scores"], http_scores)

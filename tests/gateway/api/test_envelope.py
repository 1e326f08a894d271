"""The bytes of the v4 envelope."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.envelope import answer as rendered
from gateway.api.envelope import failure
from gateway.domain.errors import (
    BackendFailed,
    BadInput,
    MalformedCredentials,
    NoSuchModel,
    Overloaded,
    UnknownToken,
)
from gateway.domain.service import Classification

ID = "f3f58c5f-7207-461a-96e1-d809e15ede3c"


def answer(*scores: tuple[str, float], tokens: int = 7, truncated: bool = False) -> Classification:
    return Classification(list(scores), tokens, truncated)


def test_the_bytes_of_a_success_are_those_of_the_live_capture() -> None:
    scores = (("NEGATIVE", 0.9562734961509705), ("POSITIVE", 0.043726541101932526))
    assert rendered(answer(*scores), "array", ID).body == (
        b'{"result":[{"label":"NEGATIVE","score":0.9562734961509705},'
        b'{"label":"POSITIVE","score":0.043726541101932526}],"success":true,"errors":[],"messages":[]}'
    )


def test_the_bytes_of_the_items_shape() -> None:
    scores = (("NEGATIVE", 0.25), ("POSITIVE", 0.75))
    assert rendered(answer(*scores), "items", ID).body == (
        b'{"result":{"items":[{"label":"POSITIVE","score":0.75},{"label":"NEGATIVE","score":0.25}]},'
        b'"success":true,"errors":[],"messages":[]}'
    )


@given(st.lists(st.tuples(st.text(), st.floats(0, 1)), min_size=1, max_size=6))
def test_scores_lose_nothing_on_the_wire(scores: list[tuple[str, float]]) -> None:
    result = json.loads(rendered(answer(*scores), "array", ID).body)["result"]
    assert [(entry["label"], entry["score"]) for entry in result] == scores


@pytest.mark.parametrize(("tokens", "neurons"), [(2, b"0.00"), (7, b"0.02"), (512, b"1.23"), (827, b"1.98")])
def test_neurons_have_two_decimals(tokens: int, neurons: bytes) -> None:
    headers = dict(rendered(answer(("A", 1.0), tokens=tokens), "array", ID).headers)
    assert headers == {b"cf-ai-req-id": ID.encode(), b"cf-ai-neurons": neurons}


def test_a_cut_text_is_marked() -> None:
    headers = dict(rendered(answer(("A", 1.0), truncated=True), "array", ID).headers)
    assert headers[b"x-truncated"] == b"true"


def test_the_bytes_of_an_ai_error_are_those_of_the_live_capture() -> None:
    response = failure(BadInput("Error: required properties at '/' are 'text'"), ID)
    assert (response.status, response.code) == (400, 5006)
    assert response.body == (
        b'{"errors":[{"message":"AiError: Bad input: Error: required properties at \'/\' are \'text\' '
        b'(f3f58c5f-7207-461a-96e1-d809e15ede3c)","code":5006}],"success":false,"result":{},"messages":[]}'
    )
    assert dict(response.headers) == {b"cf-ai-req-id": ID.encode()}


def test_the_bytes_of_a_front_error_are_those_of_the_live_capture() -> None:
    response = failure(UnknownToken(), ID)
    assert (response.status, response.headers) == (401, [])
    assert response.body == (
        b'{"result":null,"success":false,'
        b'"errors":[{"code":10000,"message":"Authentication error"}],"messages":[]}'
    )


def test_a_front_error_may_carry_a_chain() -> None:
    assert json.loads(failure(MalformedCredentials("Authorization"), None).body)["errors"] == [
        {
            "code": 6003,
            "message": "Invalid request headers",
            "error_chain": [{"code": 6111, "message": "Invalid format for Authorization header"}],
        }
    ]


def test_retries_are_invited_or_discouraged_by_header() -> None:
    assert dict(failure(Overloaded(), ID).headers)[b"retry-after"] == b"1"
    assert dict(failure(Overloaded(), ID).headers)[b"retry-after-ms"] == b"500"
    assert dict(failure(BackendFailed(), ID).headers)[b"x-should-retry"] == b"false"
    assert b"x-should-retry" not in dict(failure(BadInput("Error: x"), ID).headers)


@given(st.text())
def test_a_model_name_from_the_caller_cannot_break_the_body(name: str) -> None:
    message = json.loads(failure(NoSuchModel(name), ID).body)["errors"][0]["message"]
    assert message == f"AiError: No such model {name[:200]} or task ({ID})"

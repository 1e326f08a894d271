"""Which answers the load test takes for right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.checks import OK, WRONG, References, outcome_of
from loadtest.traffic import PlannedRequest, Refusal

REFERENCES = References({"good": {"N": 0.25, "P": 0.75}, "bad": {"N": 0.9, "P": 0.1}}, 1e-4)
SINGLE = PlannedRequest("single", "", b"", ("good",))
SEVERAL = PlannedRequest("several", "", b"", ("good", "bad"))
INVALID = PlannedRequest("invalid", "", b"", refusal=Refusal(400, {5006: "required properties"}))


def _result(negative: float = 0.25, positive: float = 0.75) -> list[dict[str, Any]]:
    return [{"label": "N", "score": negative}, {"label": "P", "score": positive}]


def _envelope(result: Any, **more: Any) -> dict[str, Any]:
    return {"result": result, "success": True, "errors": [], "messages": []} | more


def _one(place: int, result: Any, **more: Any) -> dict[str, Any]:
    return {"id": place, "result": result, "success": True, "external_reference": str(place)} | more


def _error(code: int, message: str = "") -> dict[str, Any]:
    return {"errors": [{"message": message, "code": code}], "success": False, "result": {}, "messages": []}


def _outcome(call: PlannedRequest, answer: Any, status: int = 200) -> str:
    return outcome_of(call, status, json.dumps(answer).encode(), REFERENCES)


def test_the_reference_answer_is_right_and_so_is_one_within_the_tolerance() -> None:
    assert _outcome(SINGLE, _envelope(_result())) == OK
    assert _outcome(SINGLE, _envelope(_result(0.25005, 0.74995))) == OK
    both = {"responses": [_one(0, _result()), _one(1, _result(0.9, 0.1))], "usage": {}}
    assert _outcome(SEVERAL, _envelope(both)) == OK


@pytest.mark.parametrize(
    "result",
    [_result(0.2502, 0.7498), _result()[::-1], _result(0.9, 0.1), [*_result(), {"label": "X", "score": 0}]],
)
def test_other_scores_labels_or_orders_are_wrong(result: Any) -> None:
    assert _outcome(SINGLE, _envelope(result)) == "wrong score"


def test_texts_of_one_request_cannot_be_swapped() -> None:
    swapped = {"responses": [_one(0, _result(0.9, 0.1)), _one(1, _result())], "usage": {}}
    assert _outcome(SEVERAL, _envelope(swapped)) == "wrong score"


@pytest.mark.parametrize(
    "answer",
    [
        [],
        None,
        {},
        _envelope({}),
        _envelope([]),
        _envelope(_result()[:1]),
        _envelope([{"label": "N", "score": "0.25"}, {"label": "P", "score": 0.75}]),
        _envelope(_result(-0.5, 1.5)),
        _envelope(_result(float("nan"), 0.75)),
        _envelope([_result()[0], _result()[0]]),
        _envelope([one | {"extra": 1} for one in _result()]),
        _envelope(_result(), success=False),
        _envelope(_result(), errors=[{"code": 1}]),
        _envelope(_result(), more=1),
        _envelope({"items": _result()}),
    ],
)
def test_anything_but_the_documented_shape_is_wrong(answer: Any) -> None:
    assert _outcome(SINGLE, answer) == "wrong shape"


@pytest.mark.parametrize(
    "responses",
    [
        [],
        [_one(0, _result())],
        [_one(1, _result()), _one(0, _result())],
        [_one(0, _result()), _one(1, _result(), external_reference=None)],
        [_one(0, _result()), _one(1, {}, success=False)],
        [_one(0, _result()), _one(1, _result()), _one(2, _result())],
    ],
)
def test_each_of_several_texts_needs_its_own_answer(responses: Any) -> None:
    assert _outcome(SEVERAL, _envelope({"responses": responses, "usage": {}})) == "wrong shape"


def test_bytes_that_are_no_json_are_named() -> None:
    assert outcome_of(SINGLE, 200, b"<html>", REFERENCES) == "wrong shape"
    assert outcome_of(SINGLE, 502, b"<html>", REFERENCES) == "502/no JSON"


def test_an_error_is_named_by_status_and_code() -> None:
    assert _outcome(SINGLE, _error(3040), 429) == "429/3040"
    assert _outcome(SINGLE, {"errors": []}, 500) == "wrong shape"


def test_an_invalid_request_must_be_refused_for_what_it_is() -> None:
    assert _outcome(INVALID, _error(5006, "AiError: Bad input: Error: required properties at '/'"), 400) == OK
    assert _outcome(INVALID, _error(5006, "something else"), 400) == "wrong refusal"
    assert _outcome(INVALID, _error(5007, "required properties"), 400) == "wrong refusal"
    assert _outcome(INVALID, _error(5006, "required properties"), 500) == "wrong refusal"
    assert _outcome(INVALID, _envelope(_result())) == "wrong refusal"


def test_an_invalid_request_may_meet_an_overloaded_server() -> None:
    assert _outcome(INVALID, _error(3040), 429) == "429/3040"


def test_wrong_answers_are_those_that_nothing_forgives() -> None:
    assert {"wrong score", "wrong shape", "wrong refusal"} == WRONG

"""Cloudflare's own validator, on the schemas of the models: the gateway has the same words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import BadInput
from gateway.domain.requests import InputLimits, read_request
from gateway.domain.schemas import schemas_of
from gateway.domain.tasks import Task
from tests.contract.test_rerank import OWN_WORDS, SCHEMA_WORDS
from tests.gateway.domain.test_search import model
from tests.support.clients.node import JS, environment, node, require_node

LIMITS = InputLimits(max_batch_texts=100, max_contexts=100)
ODD: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    1.5,
    2.0,
    "",
    "a",
    [],
    ["a"],
    [1, "a"],
    [None],
    [{}],
    {},
    {"text": "a"},
]
ABSENT = object()


def words(home: Path, task: Task, bodies: list[Any]) -> list[str | None]:
    """What the validator says of each body; None if it is valid."""
    require_node()
    schema: Any = schemas_of(model(task=task), LIMITS)["input"]
    given = json.dumps({"schema": schema, "bodies": bodies})
    found: list[str | None] = json.loads(node(JS, "validate.mjs", stdin=given, env=environment(home)))
    return found


def ours(task: Task, body: Any) -> str | None:
    try:
        read_request(body, task, LIMITS)
    except BadInput as refusal:
        return refusal.description
    return None


def present(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not ABSENT}


def test_the_words_of_the_contract_tests_are_the_validators(tmp_path: Path) -> None:
    said = words(tmp_path, Task.RERANK, [body for body, _ in SCHEMA_WORDS])
    assert said == [f"Error: {expected}" for _, expected in SCHEMA_WORDS]
    passing = [{"query": "a", "contexts": contexts} for contexts, _ in OWN_WORDS]
    assert words(tmp_path, Task.RERANK, passing) == [None] * len(OWN_WORDS)


def test_every_combination_of_odd_values_gets_the_same_words(tmp_path: Path) -> None:
    contexts = [*ODD, *([{"text": value}] for value in ODD), [{"text": "a"}, {"text": ""}], ABSENT]
    queries, numbers = [*ODD, ABSENT], [*ODD, ABSENT]
    bodies: list[Any] = [
        *(present({"query": query, "contexts": [{"text": "a"}], "top_k": top_k})
          for query, top_k in itertools.product(queries, numbers)),
        *(present({"query": query, "contexts": given})
          for query, given in itertools.product(queries, contexts)),
        *(present({"query": "a", "contexts": given, "top_k": top_k})
          for given, top_k in itertools.product(contexts, numbers)),
        *ODD,
    ]  # fmt: skip
    said = words(tmp_path, Task.RERANK, bodies)
    assert len({each for each in said if each is not None}) > 25
    different = [
        (body, theirs, mine)
        for body, theirs, mine in zip(bodies, said, (ours(Task.RERANK, body) for body in bodies), strict=True)
        if theirs != mine and not (theirs is None and _is_without_text(body))
    ]
    assert different == []


def _is_without_text(body: dict[str, Any]) -> bool:
    """Whether a context lacks its text, which the validator may let pass and there is no answer without."""
    contexts = body["contexts"]
    return not isinstance(contexts, list) or any(
        not isinstance(each, dict) or "text" not in each for each in contexts
    )


@pytest.mark.parametrize("extra", [{}, {"options": None, "top_k": 0}])
def test_texts_get_the_same_words(tmp_path: Path, extra: dict[str, Any]) -> None:
    bodies = [*({"text": value} | extra for value in ODD), extra, *ODD]
    assert words(tmp_path, Task.CLASSIFICATION, bodies) == [
        ours(Task.CLASSIFICATION, body) for body in bodies
    ]

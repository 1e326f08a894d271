"""Filters, pages and records of models."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput
from gateway.domain.scores import ProblemType
from gateway.domain.search import (
    Criteria,
    Page,
    author_of,
    find,
    model_record,
    openai_record,
    positive_number,
)
from gateway.domain.tasks import Task

SST2 = "@cf/huggingface/distilbert-sst-2-int8"


def model(name: str = SST2, **other: Any) -> Model:
    given: dict[str, Any] = {
        "ensemble": name,
        "labels": ("A", "B"),
        "max_tokens": 512,
        "problem_type": ProblemType.SINGLE_LABEL,
        "task": Task.CLASSIFICATION,
    }
    return Model(name=name, **(given | other))


MODELS = [
    model(),
    model("@cf/acme/mood", description="How people FEEL"),
    model("@cf/acme/rank", task=Task.RERANK),
    model("plain"),
]


def names(**wanted: Any) -> list[str]:
    return [found.name for found in find(MODELS, Criteria(**wanted))]


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.integers(1, 40))
def test_pages_of_any_size_hold_every_model_just_once_and_then_nothing(slugs: list[str], size: int) -> None:
    found = find([model(slug) for slug in slugs], Criteria())
    last = -(-len(slugs) // size)
    pages = [Page(number, size).of(found) for number in range(1, last + 1)]
    assert sorted(entry.name for page in pages for entry in page) == sorted(slugs)
    assert all(len(page) == size for page in pages[:-1])
    for number in (last + 1, last + 2, 10**9):
        assert Page(number, size).of(found) == []


@given(st.permutations(MODELS))
def test_the_order_does_not_depend_on_the_catalogues(models: list[Model]) -> None:
    assert find(models, Criteria()) == find(MODELS, Criteria())


def test_filters_choose_and_combine() -> None:
    assert names() == ["@cf/acme/mood", "@cf/acme/rank", SST2, "plain"]
    assert names(search="SST-2") == [SST2]
    assert names(search="people feel") == ["@cf/acme/mood"]
    assert names(author="ACME") == ["@cf/acme/mood", "@cf/acme/rank"]
    assert names(author="acm") == []
    for task in ("Text Classification", "text-classification"):
        assert names(task=task) == ["@cf/acme/mood", "@cf/acme/rank", SST2, "plain"]
        assert names(task=task, author="acme") == ["@cf/acme/mood", "@cf/acme/rank"]
    assert names(task="Text") == []
    assert names(source=1) == names()
    assert names(source=2) == []


@pytest.mark.parametrize("given_", ["", "0", "-1", "1.0", "1e3", "x", " 1", "²", "9" * 10, "+1", "true"])
def test_what_is_no_positive_number_is_refused_by_name(given_: str) -> None:
    with pytest.raises(BadInput, match="query parameter 'page' must be an integer >= 1"):
        positive_number("page", given_, 1)


def test_a_number_that_is_left_out_is_the_default() -> None:
    assert positive_number("page", None, 7) == 7
    assert positive_number("page", "0012", 7) == 12


def test_the_record_has_the_shape_of_the_documented_one() -> None:
    record = model_record(
        model(
            description="d",
            created_at="2026-11-22 00:00:00.000",
            precision="int8",
            checkpoint="c",
            version_id="3-9f2c1ab0",
        )
    )
    assert record == {
        "id": "eaf31752-a074-441f-8b70-d593255d2811",
        "source": 1,
        "name": SST2,
        "description": "d",
        "task": {
            "id": "19606750-23ed-4371-aab2-c20349b53a60",
            "name": "Text Classification",
            "description": "Sentiment analysis or text classification is a common NLP task that classifies "
            "a text input into labels or classes.",
        },
        "created_at": "2026-11-22 00:00:00.000",
        "tags": [],
        "properties": [
            {
                "property_id": "price",
                "value": [{"unit": "per M input tokens", "price": 0.0263, "currency": "USD"}],
            },
            {"property_id": "info", "value": "c"},
            {"property_id": "max_input_tokens", "value": "512"},
            {"property_id": "precision", "value": "int8"},
            {"property_id": "version", "value": "3-9f2c1ab0"},
        ],
    }


def test_ids_are_stable_and_different() -> None:
    ids = [str(model_record(entry)["id"]) for entry in MODELS]
    assert len({UUID(value) for value in ids}) == len(MODELS)
    assert ids == [model_record(model(entry.name, description="x"))["id"] for entry in MODELS]


def test_authors_of_any_name() -> None:
    assert [author_of(entry) for entry in MODELS] == ["huggingface", "acme", "acme", "plain"]
    assert author_of(model("acme/mood")) == "acme"


@pytest.mark.parametrize(
    ("created_at", "seconds"), [("2023-09-25 19:21:11.898", 1695669671), ("", 0), ("soon", 0)]
)
def test_openai_wants_seconds(created_at: str, seconds: int) -> None:
    assert openai_record(model(created_at=created_at)) == {
        "id": SST2,
        "object": "model",
        "created": seconds,
        "owned_by": "huggingface",
    }


def test_the_price_is_that_of_the_task_in_the_form_of_the_live_records() -> None:
    for record, dollars in ((model_record(MODELS[0]), 0.0263), (model_record(MODELS[2]), 0.00311)):
        (price,) = [entry["value"] for entry in properties(record) if entry["property_id"] == "price"]
        assert price == [{"unit": "per M input tokens", "price": dollars, "currency": "USD"}]
        assert list(price[0]) == ["unit", "price", "currency"]


def properties(record: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record["properties"]
    return found

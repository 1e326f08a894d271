"""Properties of parsing and validation; the table of messages is in the contract tests."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import BadInput, MalformedBody
from gateway.domain.requests import text_of
from gateway.domain.validate import parse_json, result_shape, utf8

ANY_TEXT = st.text(alphabet=st.characters())  # lone surrogates included
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_every_json_document_is_parsed(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_either_parsed_or_refused_as_malformed(body: bytes) -> None:
    with suppress(MalformedBody):
        parse_json(body)


@given(JSON_VALUES)
def test_any_json_is_either_a_text_or_refused_in_the_validators_words(value: object) -> None:
    for payload in (value, {"text": value}):
        if isinstance(payload, dict) and isinstance(payload.get("text"), str) and payload["text"]:
            assert text_of(payload) == payload["text"]
        else:
            with pytest.raises(BadInput, match=r"^Bad input: Error: "):
                text_of(payload)


@given(st.text(min_size=1), st.dictionaries(st.text(), JSON_VALUES, max_size=3))
def test_every_text_that_is_not_empty_is_valid_beside_any_other_keys(
    text: str, others: dict[str, object]
) -> None:
    assert text_of(others | {"text": text}) == text


@given(ANY_TEXT)
def test_any_python_string_becomes_valid_utf8_that_differs_only_in_lone_surrogates(text: str) -> None:
    expected = "".join("\ufffd" if 0xD800 <= ord(character) <= 0xDFFF else character for character in text)
    assert utf8(text) == expected.encode("utf-8")


@given(ANY_TEXT)
def test_escaped_surrogates_never_raise_anything_but_a_refusal(text: str) -> None:
    payload = parse_json(json.dumps({"text": text + "x"}).encode())
    assert text_of(payload)
    assert utf8(text_of(payload)).decode("utf-8")


def test_a_surrogate_pair_of_escapes_is_one_character() -> None:
    assert parse_json(rb'["\ud83e\uddc0", "\ud83e"]') == ["🧀", "\ud83e"]


def test_the_deepest_json_is_refused_and_not_an_error_of_ours() -> None:
    for body in (b"[" * 10**6, b'{"a":' * 10**5, b"[" * 10**5 + b"]" * 10**5, b'["\\ud800",' + b"[" * 10**5):
        with pytest.raises(MalformedBody):
            parse_json(body)


def test_the_query_wins_over_the_default_shape() -> None:
    assert result_shape(None, "array") == "array"
    assert result_shape(None, "items") == "items"
    assert result_shape("array", "items") == "array"
    assert result_shape("items", "array") == "items"
    with pytest.raises(BadInput):
        result_shape("Items", "array")

"""Properties of parsing and validation; the table of messages is in the contract tests."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import validate
from gateway.domain.errors import BadInput, MalformedBody
from gateway.domain.requests import text_of
from gateway.domain.validate import (
    LARGE_BYTES,
    MOST_VALUES,
    may_ask_for_batch,
    parse_json,
    result_shape,
    utf8,
)

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


def padded(document: bytes) -> bytes:
    """A document in a body that is large."""
    return document + b" " * LARGE_BYTES


def count_values(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(count_values, value.values()))
    return 1 + sum(map(count_values, value)) if isinstance(value, list) else 1


@given(JSON_VALUES, st.booleans())
def test_only_values_count_as_values(value: object, ascii_only: bool) -> None:
    body = padded(json.dumps(value, ensure_ascii=ascii_only).encode())
    with pytest.MonkeyPatch.context() as patch:
        # Of empty arrays and objects, their brackets count as one more.
        patch.setattr(validate, "MOST_VALUES", 2 * count_values(value))
        assert parse_json(body) == value
        patch.setattr(validate, "MOST_VALUES", count_values(value) - 1)
        with pytest.raises(MalformedBody, match=f"more than {count_values(value) - 1} values"):
            parse_json(body)


@pytest.mark.parametrize("text", [",", "[{", '"', "\\", '\\",', "\\u005b", "é,"])
def test_a_long_text_has_no_values_whatever_is_in_it(text: str) -> None:
    payload = {"requests": [{"text": text * (4_000_000 // len(text))}, {"text": "b"}]}
    assert parse_json(json.dumps(payload).encode()) == payload


@pytest.mark.parametrize("item", [b"[]", b"[[]]", b'""', b'{"a":[]}', b"0", b'"\\\\"'])
def test_a_large_body_of_many_values_is_refused_and_a_small_one_is_not(item: bytes) -> None:
    body = b"[" + (item + b",") * MOST_VALUES + b"0]"
    with pytest.raises(MalformedBody, match=f"more than {MOST_VALUES} values"):
        parse_json(padded(body))
    small = b"[" + (item + b",") * (LARGE_BYTES // (len(item) + 1) - 2) + b"0]"
    assert parse_json(small) == json.loads(small)


def test_a_large_body_of_many_values_is_refused_in_a_fraction_of_the_time_of_decoding_it() -> None:
    body = b"[" + b"[]," * 3_000_000 + b"0]"

    def refused() -> None:
        with pytest.raises(MalformedBody):
            parse_json(body)

    assert min(map(_seconds, [refused] * 3)) < _seconds(lambda: msgspec.json.decode(body)) / 5


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@pytest.mark.parametrize("body", [b"[" + b"[]," * 100_000 + b"0]", b'["\\ud800",' + b"[]," * 100_000 + b"0]"])
def test_no_garbage_is_collected_while_a_body_is_decoded(body: bytes) -> None:
    collected: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        collected.append(phase)

    gc.callbacks.append(note)
    try:
        parsed = parse_json(body)
        found = len(collected)
    finally:
        gc.callbacks.remove(note)
    assert isinstance(parsed, list)
    assert len(parsed) > 100_000
    assert found <= 2  # the beginning and the end of one, after it
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_body_that_is_refused() -> None:
    with pytest.raises(MalformedBody):
        parse_json(b"{")
    assert gc.isenabled()


@pytest.mark.parametrize("escaped", [False, True])
def test_a_body_that_asks_for_a_batch_may_ask_for_one(escaped: bool) -> None:
    key = "\\u0071ueueRequest" if escaped else "queueRequest"
    body = f'{{"inputs": {{"text": "a"}}, "options": {{"{key}": true}}}}'.encode()
    assert validate.asks_for_batch(parse_json(body))
    assert may_ask_for_batch(body)
    assert not may_ask_for_batch(b'{"inputs": {"text": "queue", "more": "\\n"}}')


def test_the_query_wins_over_the_default_shape() -> None:
    assert result_shape(None, "array") == "array"
    assert result_shape(None, "items") == "items"
    assert result_shape("array", "items") == "array"
    assert result_shape("items", "array") == "items"
    with pytest.raises(BadInput):
        result_shape("Items", "array")

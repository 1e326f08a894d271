"""JSON bodies, decoded into structures."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import BadInput, MalformedBody
from gateway.domain.validate import parse_json, printable
from gateway.json_body import decode_json


class Named(msgspec.Struct):
    name: str
    values: list[object] = []


@given(st.text(st.characters()), st.lists(st.text(st.characters()), max_size=3), st.booleans())
def test_any_text_comes_back_with_lone_surrogates_replaced(name: str, values: list[str], bom: bool) -> None:
    body = b"\xef\xbb\xbf" * bom + json.dumps({"name": name, "values": values}).encode()
    decoded = decode_json(body, Named)
    # json.dumps writes a character beyond U+FFFF as a pair; two lone halves in a row become one character.
    assert (decoded.name, decoded.values) == (joined(name), [joined(value) for value in values])


def joined(text: str) -> str:
    return printable(json.loads(json.dumps(text)))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\ud83d", "\ufffd"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\uD83D\uD83D\uDE00", "\ufffd\U0001f600"),
        (r"\\ud83d", "\\ud83d"),
        (r"\\\ud83d", "\\\ufffd"),
        (r"\\\\ud83d\ud83d", "\\\\ud83d\ufffd"),
        (r"\n\ud83d\n", "\n\ufffd\n"),
        (r"\ud83d\\ude00", "\ufffd\\ude00"),
    ],
)
def test_escaped_surrogates_are_told_from_escaped_backslashes(written: str, meant: str) -> None:
    body = f'{{"name":"{written}","values":["\\udfff"]}}'.encode()
    assert decode_json(body, Named) == Named(meant, ["\ufffd"])
    parsed = parse_json(body)
    assert isinstance(parsed, dict)
    assert printable(parsed["name"]) == meant


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "the body is empty"),
        (b" \r\n", "the body is empty"),
        (b"\xef\xbb\xbf", "the body is empty"),
        (b"{", "not valid JSON"),
        (b'{"name":"a"}x', "not valid JSON"),
        (b'{"name":"\xff"}', "not valid JSON"),
        (b'{"name":"\xed\xa0\x80"}', "not valid JSON"),
        (b'{"values":[NaN],"name":"a"}', "not valid JSON"),
        (b'{"values":[-Infinity],"name":"a"}', "not valid JSON"),
        (b'{"name":"a","values":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deep"),
        (b"[" * 1_000_000, "nested too deep"),
    ],
)
def test_what_is_not_json_is_a_malformed_body(body: bytes, problem: str) -> None:
    with pytest.raises((MalformedBody, BadInput), match=f"{problem}|Expected `object`, got `array`"):
        decode_json(body, Named)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "Object missing required field `name`"),
        (b'{"name":1}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"name":"a","values":{}}', "Expected `array`, got `object` - at `$.values`"),
    ],
)
def test_another_structure_is_bad_input_that_names_the_place(body: bytes, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        decode_json(body, Named)
    assert caught.value.message == f"Bad input: {problem}"


def test_of_a_key_that_comes_twice_the_last_one_counts() -> None:
    assert decode_json(b'{"name":"a","name":"b"}', Named).name == "b"


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_or_refused_in_a_known_way(body: bytes) -> None:
    for tried in (body, b'{"name":"' + body + b'"}'):
        with suppress(MalformedBody, BadInput):
            decode_json(tried, Named)

"""Windows of long texts are those of ``transformers``, whatever else is in the request."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from export.repository.write import TOKENIZER_SOURCES
from export.triton_models import long_texts, windows
from export.triton_models.windows import WindowReader, special_tokens
from tests.export.test_long_texts import LIMIT, NEVER_CUT, NEVER_CUT_ON_THE_LEFT, TOKENIZERS, hostile
from tests.support.small_checkpoints import write_checkpoint
from tests.support.triton_steps import FakeRequest, fake_pb_utils, load_step, pairs, strings, tensors, texts

OVERLAPS = (0, 3, LIMIT - 3)
MOST = 2_000
"""More windows than any text of these tests has."""
SENTENCES = "So it goes, and it was a lovely day for a novel. " * 30


def wanted(reference: PreTrainedTokenizerFast, text: str, overlap: int) -> list[list[int]]:
    """The token ids of all windows of a text."""
    rows: list[list[int]] = reference(
        text, truncation=True, max_length=LIMIT, stride=overlap, return_overflowing_tokens=True
    )["input_ids"]
    return rows


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_windows_are_those_of_transformers(name: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "FIRST_READ", 2)
    monkeypatch.setattr(long_texts, "SEARCHED", 16)
    saved = TOKENIZERS[name]().to_str()  # trained a second time, it could be another one
    tokenizer, copied = (Tokenizer.from_str(saved) for _ in range(2))
    make: Any = PreTrainedTokenizerFast
    reference = make(tokenizer_object=copied, truncation_side=side)
    tokenizer.enable_truncation(LIMIT, direction=side)
    reader = WindowReader(tokenizer)
    rng = random.Random(f"{name}{side}")
    unread = 0
    for text in (SENTENCES, *(hostile(rng) for _ in range(12))):
        overlap = rng.choice(OVERLAPS)
        rows = wanted(reference, text, overlap)
        found = reader.read(text, overlap, MOST, range(len(rows) + 2))
        assert [window.ids for window in found] == [*rows, [], []], (text[:200], overlap)
        left = [window.token_count for window in found]
        assert left[-2:] == [0, 0]
        assert all(count > LIMIT for count in left[: len(rows) - 1]), "another one follows"
        assert left[len(rows) - 1] == len(rows[-1]), "the last window's tokens are all that is left"
        # Of a reader that wants no more than two, the text need not be read on.
        few = reader.read(text, overlap, 2, [1, 0])
        assert [window.ids for window in few] == [found[1].ids, found[0].ids]
        assert few[0].token_count <= found[1].token_count
        assert (few[0].token_count > LIMIT) == (len(rows) > 2)
        unread += few[1].token_count < found[0].token_count
    assert len(wanted(reference, SENTENCES, 0)) > 10
    assert (unread == 0) == (name in NEVER_CUT or (side == "left" and name in NEVER_CUT_ON_THE_LEFT))


def test_window_0_is_what_an_ordinary_text_is_cut_to() -> None:
    tokenizer = TOKENIZERS["bert"]()
    tokenizer.enable_truncation(LIMIT)
    reader = WindowReader(tokenizer)
    for text in ("", "a", "So it goes, and goes on. " * 20):
        (window,) = reader.read(text, 3, MOST, [0])
        assert window.ids == tokenizer.encode(text).ids


def test_a_tokenizer_without_tokens_for_texts_has_no_windows() -> None:
    assert special_tokens(TOKENIZERS["bert"]()) == 2
    assert special_tokens(Tokenizer(models.WordLevel({}, "x"))) is None


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return tokenizer_step(tmp_path, monkeypatch, "TEXT")


def tokenizer_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *inputs: str) -> Any:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_pb_utils())
    folder = write_checkpoint(tmp_path / "small", labels=3)
    config = {
        "input": tensors(*inputs),
        "output": tensors("input_ids", "attention_mask", "token_count"),
        "parameters": strings({"max_tokens": "8", "pad_id": "0"}),
    }
    return load_step(TOKENIZER_SOURCES, folder, config)


def asking(request: FakeRequest, entries: object) -> FakeRequest:
    return FakeRequest(request, {"windows": json.dumps(entries)})


def rows_of(response: Any) -> list[tuple[list[int], int]]:
    """Token ids without padding, and the count, of each row."""
    assert response.error is None, response.error.args
    ids, mask = response.tensors["input_ids"], response.tensors["attention_mask"]
    counts = response.tensors["token_count"].ravel().tolist()
    return [
        (row[: int(kept.sum())].tolist(), count) for row, kept, count in zip(ids, mask, counts, strict=True)
    ]


def answered(step: Any, request: FakeRequest) -> Any:
    """The response, whoever sends it."""
    (response,) = step.execute([request])
    return request.answers.get(timeout=30)[0] if response is None else response


@pytest.mark.parametrize("long", [False, True])
def test_windows_stand_beside_texts_and_change_nothing(step: Any, long: bool) -> None:
    text, other = "a b c d e f " * (2000 if long else 3), "f e d c b a " * 4
    alone = [
        rows_of(answered(step, asking(texts(each), [[0, number, 2, 3]])))[0]
        for each, number in ((text, 1), (text, 2), (other, 0), (other, 1))
    ]
    plain = rows_of(answered(step, texts("a b", other)))
    entries = [[0, 1, 2, 3], None, [2, 1, 2, 3], [0, 2, 2, 3], [2, 0, 2, 3], None]
    request = asking(texts(text, "a b", other, "", "", other), entries)
    found = rows_of(answered(step, request))
    assert found[:5] == [alone[0], plain[0], alone[3], alone[1], alone[2]]
    assert found[5][0] == plain[1][0]  # its count tells how far it was read: beside a long text less far
    assert len({tuple(ids) for ids, _ in found}) == 5  # the ordinary text and its window 0 are equal


def test_a_window_beyond_the_end_has_no_tokens(step: Any) -> None:
    (row,) = rows_of(answered(step, asking(texts("a b"), [[0, 1, 2, 3]])))
    assert row == ([0], 0)


@pytest.mark.parametrize(
    "entries",
    [
        [], [None], [None, None, None], {"0": 1}, "text", 7,
        [None, 1], [None, []], [None, [0, 1, 2]], [None, [0, 1, 2, 3, 4]], [None, [0, 1, 2, 3.0]],
        [None, [True, 1, 2, 3]], [None, [2, 1, 2, 3]], [None, [-1, 1, 2, 3]], [None, [0, 3, 2, 3]],
        [None, [0, -1, 2, 3]], [None, [0, 1, 6, 3]], [None, [0, 1, -1, 3]], [None, [0, 1, 2, 10_001]],
    ],
)  # fmt: skip
def test_malformed_windows_are_refused(step: Any, entries: object) -> None:
    (response,) = step.execute([asking(texts("a", "b"), entries)])
    assert response.error.args == ("TEXT does not match the parameter windows", 3)


def test_pairs_have_no_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tokenizer_step(tmp_path, monkeypatch, "QUERY", "TEXT")
    (response,) = step.execute([asking(pairs(("a", "b")), [[0, 0, 2, 3]])])
    assert response.error.args == ("QUERY or TEXT does not match the parameter windows", 3)
    (response,) = step.execute([FakeRequest(pairs(("a", "b")), {"windowed": "b"})])
    assert response.error is None


def test_other_parameters_are_ignored(step: Any) -> None:
    (response,) = step.execute([FakeRequest(texts("a"), {"windows_of": 3, "b": True})])
    assert rows_of(response) == rows_of(step.execute([texts("a")])[0])

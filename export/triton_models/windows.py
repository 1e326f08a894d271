"""Windows of long texts: what ``transformers`` gives with ``return_overflowing_tokens`` and ``stride``.

A request asks for windows with the request parameter ``windows``, a JSON array with an entry for each row of
TEXT. An entry is null for a row that is an ordinary text, or four integers:

* the row of TEXT that holds the window's text: the row itself, or another one, so that a text is sent once;
* the window's number, from 0. Window 0 is what an ordinary text is cut to, and each further one begins
  (on the side that is kept) where the last one ends, less the overlap;
* the overlap in tokens, less than a window has without its special tokens;
* how many windows of this text the caller reads at most: the text need not be read beyond them.

The tokens of a window depend on these four and its text alone, never on the other rows.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from .long_texts import FIRST_READ, TextParts

PARAMETER = "windows"
MOST_WINDOWS = 10_000
_ENTRY = 4
_PROBES = ("a", "0", "!", "the")
_PROBED_WORDS = 100


class Window(NamedTuple):
    """One row of a request."""

    text: bytes
    """UTF-8."""
    number: int
    overlap: int
    most: int


class WindowTokens(NamedTuple):
    """Token ids of a window, special tokens included, and how many there are from its beginning.

    ``token_count`` is what it would be for an ordinary text that begins where the window does: above the
    model's limit, another window follows. It is 0, without ids, for a window beyond the end of the text.
    """

    ids: list[int]
    token_count: int


def special_tokens(tokenizer: Tokenizer) -> int | None:
    """How many special tokens stand around each text; None if its texts cannot be read in windows."""
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    with suppress(ValueError):
        _frame(tokenizer, special)
        return int(special)
    return None


def read_windows(parameters: str, texts: Sequence[bytes], most_overlap: int) -> list[bytes | Window] | None:
    """What the rows of a request are; None if it does not ask for windows.

    Args:
        parameters: of the request, as Triton hands them over: a JSON object.
        texts: the rows of TEXT.
        most_overlap: the largest overlap that the model's windows may have.

    Raises:
        ValueError: the parameter is malformed.
    """
    if PARAMETER not in parameters:
        return None
    given = json.loads(parameters).get(PARAMETER)
    if given is None:
        return None
    entries = json.loads(given)
    if not isinstance(entries, list) or len(entries) != len(texts):
        raise ValueError("not one entry for each row")
    return [
        text if entry is None else _window(entry, texts, most_overlap)
        for text, entry in zip(texts, entries, strict=True)
    ]


def _window(entry: Any, texts: Sequence[bytes], most_overlap: int) -> Window:
    if not isinstance(entry, list) or len(entry) != _ENTRY or any(type(each) is not int for each in entry):
        raise ValueError("an entry is not four integers")
    row, number, overlap, most = entry
    if not (0 <= row < len(texts) and 0 <= number < most <= MOST_WINDOWS and 0 <= overlap <= most_overlap):
        raise ValueError("an integer is out of range")
    return Window(texts[row], number, overlap, most)


class WindowReader:
    """Cuts texts into windows.

    Args:
        tokenizer: truncates to the model's limit, on its side, without a stride. It is asked for all pieces
            of a text, whose tokens are put together and cut anew: a tokenizer with a stride of its own would
            be a second one in memory.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Find out where a text's tokens are among the special ones."""
        truncation: dict[str, Any] = tokenizer.truncation or {}
        self._tokenizer = tokenizer
        self._left = truncation["direction"] == "left"
        self._special = tokenizer.num_special_tokens_to_add(is_pair=False)
        self._size = int(truncation["max_length"]) - self._special
        self._parts = TextParts(tokenizer, left=self._left)
        self._frame: tuple[list[int], list[int]] | None = None

    @property
    def most_overlap(self) -> int:
        """The largest overlap of two windows, in tokens: each must bring a new one."""
        return self._size - 1

    def read(self, text: str, overlap: int, most: int, numbers: Sequence[int]) -> list[WindowTokens]:
        """The windows of a text with these numbers; see `Window`.

        Raises:
            ValueError: the tokenizer does not put the text between special tokens.
        """
        if self._frame is None:
            self._frame = _frame(self._tokenizer, self._special)
        step = self._size - overlap
        # One token more than the windows hold tells that there are more.
        tokens = self._tokens(text, self._size + (most - 1) * step + 1)
        return [self._cut(tokens, number * step, overlap) for number in numbers]

    def _cut(self, tokens: list[int], start: int, overlap: int) -> WindowTokens:
        """The window that begins ``start`` tokens from the side that is kept."""
        left = len(tokens) - start
        if start and left <= overlap:
            return WindowTokens([], 0)  # the window before has read the text to its end
        first = max(0, left - self._size) if self._left else start
        kept = tokens[first : left if self._left else start + self._size]
        before, after = self._frame or ([], [])
        return WindowTokens([*before, *kept, *after], left + self._special)

    def _tokens(self, text: str, enough: int) -> list[int]:
        """Ids of all tokens of a text, or of at least ``enough`` of them from the side that is kept."""
        ids: list[int] = []
        for part in self._parts.of(text, FIRST_READ * enough):
            # Not encode(): it keeps the interpreter's lock.
            encoding = self._tokenizer.encode_batch_fast([part])[0]
            pieces = [encoding, *encoding.overflowing]
            ids = [
                each for piece in (reversed(pieces) if self._left else pieces) for each in self._own(piece)
            ]
            if len(ids) >= enough:
                break
        return ids

    def _own(self, piece: Any) -> list[int]:
        """The ids of a piece without the special tokens around them."""
        before, after = self._frame or ([], [])
        ids: list[int] = piece.ids
        return ids[len(before) : len(ids) - len(after)]


def _frame(tokenizer: Tokenizer, special: int) -> tuple[list[int], list[int]]:
    """The special tokens before and after each text.

    Raises:
        ValueError: it puts them elsewhere, or nowhere as the tokenizer makes no tokens of any text.
    """
    for word in (*_PROBES, *sorted(tokenizer.get_vocab(with_added_tokens=False))[:_PROBED_WORDS]):
        # Without a token for unknown words, tokenizers raises bare Exception.
        with suppress(Exception):
            encoding = tokenizer.encode(word)
            mask = encoding.special_tokens_mask
            own = [place for place, is_special in enumerate(mask) if not is_special]
            if own and not encoding.overflowing and own == list(range(own[0], own[-1] + 1)):
                before, after = encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]
                if len(before) + len(after) == special:
                    return before, after
    raise ValueError("it does not put special tokens around a text")

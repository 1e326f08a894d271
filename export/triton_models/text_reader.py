"""Token ids of texts, as the encoder reads them.

Every text is tokenized by itself, so no text can change another's tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .long_texts import LongTextEncoder
from .windows import Window, WindowReader, read_windows

LONG_BYTES = 16 * 1024
"""Requests with more text than this are long; the gateway never puts such a text into a call with others."""

Row = tuple[list[int], list[int], int]
"""Token ids, their types (empty where the encoder reads none), and ``token_count``.

``token_count`` is the number of tokens before truncation. Of a text that was not read to its end it is
the number of those that were read: more than the limit, and no more than the text has.
"""


class TextReader:
    """Tokenizes the texts of a request.

    ``inputs`` are the names of the request's tensors, and ``called`` is what an error message calls them.
    """

    inputs: tuple[str, ...] = ("TEXT",)
    called = "TEXT"

    def __init__(self, tokenizer_file: Path, parameters: dict[str, dict[str, str]]) -> None:
        """Load the tokenizer and disable the padding that its file may ask for."""
        self.pad_id = int(parameters["pad_id"]["string_value"])
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.tokenizer.no_padding()
        # Of the file's own truncation only the side counts; the limit is the model's.
        side = (self.tokenizer.truncation or {"direction": "right"})["direction"]
        self.prepare(int(parameters["max_tokens"]["string_value"]), side)

    def prepare(self, max_tokens: int, side: str) -> None:
        """Set the tokenizer to the model's limit and to the side on which long texts are cut."""
        self.tokenizer.enable_truncation(max_tokens, direction=side)
        self.special = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        self.encoder = LongTextEncoder(self.tokenizer)
        self.windows = WindowReader(self.tokenizer)

    def gather(self, columns: Sequence[list[bytes]], parameters: str = "") -> tuple[list[Any], int]:
        """What is to be tokenized, of the tensors called ``inputs``, and how many bytes there are.

        Args:
            columns: the rows of these tensors.
            parameters: of the request, a JSON object; `windows` describes the one that counts.

        Raises:
            ValueError: that one is malformed.
        """
        (texts,) = columns
        rows = read_windows(parameters, texts, self.windows.most_overlap)
        return texts if rows is None else rows, sum(map(len, texts))

    def encode(self, texts: list[Any], *, long: bool) -> list[Row]:
        """Tokenize UTF-8 texts; ``long`` ones one after the other, and only as far as the model reads.

        A `Window` stands for a part of a text.
        """
        if any(isinstance(text, Window) for text in texts):
            return self._encode_windows(texts, long=long)
        encode_batch = self.encoder.encode_batch if long else self.tokenizer.encode_batch_fast
        encodings = encode_batch([text.decode("utf-8") for text in texts])
        return [(encoding.ids, [], self._count(encoding)) for encoding in encodings]

    def _encode_windows(self, texts: list[Any], *, long: bool) -> list[Row]:
        """Tokenize texts and windows; a text with several windows is read once."""
        rows: list[Row] = [([], [], 0)] * len(texts)
        plain = [place for place, text in enumerate(texts) if not isinstance(text, Window)]
        if plain:
            found = self.encode([texts[place] for place in plain], long=long)
            for place, row in zip(plain, found, strict=True):
                rows[place] = row
        asked: dict[tuple[bytes, int, int], list[int]] = {}
        for place, text in enumerate(texts):
            if isinstance(text, Window):
                asked.setdefault((text.text, text.overlap, text.most), []).append(place)
        for (text, overlap, most), places in asked.items():
            numbers = [texts[place].number for place in places]
            windows = self.windows.read(text.decode("utf-8"), overlap, most, numbers)
            for place, (ids, count) in zip(places, windows, strict=True):
                # A row without any token would have nothing to attend to; its logits are ignored anyway.
                rows[place] = (ids or [self.pad_id], [], count)
        return rows

    def _count(self, encoding: Any) -> int:
        """Tokens before truncation; each overflowing piece carries special tokens of its own."""
        rest = sum(len(piece) - self.special for piece in encoding.overflowing)
        return len(encoding) + rest

"""In which encoding a text file is written."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from itertools import pairwise

from bulk.errors import TableError
from bulk.tables.source import Source, first_undecodable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GUESSED_ON = 64 * 1024
"""Bytes for the guess among one-byte encodings, which takes time."""
_WESTERN = frozenset("äöüßÄÖÜéèêëàâáãåçñíìîïóòôõøúùûæœÉÈÀÇ€£§°«»–—‘’“”…•·©®²½")
"""What text in cp1252 has above ASCII, if it is text."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec, and whether the file begins with a byte order mark, which is no text."""

    codec: str
    has_mark: bool = False

    def __str__(self) -> str:
        return self.codec.upper() if self.codec.startswith("utf") else self.codec


def find_encoding(source: Source, given: str | None) -> Encoding:
    """Return the encoding of the input; of a file, every byte was decoded once.

    A mark counts first. Without one it is UTF-8 if all bytes are, else UTF-16 if every other byte of the
    beginning is 0, else what charset-normalizer makes of the text around the first byte that is not UTF-8.

    Args:
        source: the input.
        given: the encoding that a person named, if any.

    Raises:
        TableError: it is none, or the file cannot be decoded in it.
    """
    found = _named(source, given) if given else _guess(source)
    if source.size is not None and source.path is not None:
        wrong = first_undecodable(source.path, found.codec)
        if wrong is not None and given is None and found.codec == "utf-8" and not found.has_mark:
            # The beginning was ASCII, and what came later is not UTF-8.
            found = _one_byte(source, wrong[1])
            wrong = first_undecodable(source.path, found.codec)
        if wrong is not None:
            raise TableError(
                f"{source.name}: byte {wrong[0]} is not {found}; name the encoding with --encoding"
            )
    return found


def _named(source: Source, given: str) -> Encoding:
    try:
        codec = codecs.lookup(given).name
        "a".encode(codec)
    except LookupError as error:
        raise TableError(f"{given} is no encoding that Python knows") from error
    for mark, of in _MARKS:
        if source.sample.startswith(mark) and codec in (of, of.removesuffix("-le"), of.removesuffix("-be")):
            return Encoding(of, has_mark=True)
    if codec in ("utf-8-sig", "utf-16", "utf-32"):  # without a mark
        return Encoding({"utf-8-sig": "utf-8"}.get(codec, f"{codec}-le"))
    return Encoding(codec)


def _guess(source: Source) -> Encoding:
    sample = source.sample
    for mark, codec in _MARKS:
        if sample.startswith(mark):
            return Encoding(codec, has_mark=True)
    even, odd = sample[0:4096:2], sample[1:4096:2]
    if even and odd and odd.count(0) > 0.4 * len(odd) and even.count(0) < 0.1 * len(even):
        return Encoding("utf-16-le")
    if even and odd and even.count(0) > 0.4 * len(even) and odd.count(0) < 0.1 * len(odd):
        return Encoding("utf-16-be")
    try:
        # Not final: the sample may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=source.holds_all)
    except UnicodeDecodeError as error:
        return _one_byte(source, sample[error.start :])
    return Encoding("utf-8")


def _one_byte(source: Source, text: bytes) -> Encoding:
    """Guess on the lines that are not ASCII: they alone tell encodings apart."""
    lines = (line for line in text.splitlines(keepends=True) if not line.isascii())
    telling, size = [], 0
    for line in lines:
        telling.append(line)
        size += len(line)
        if size > _GUESSED_ON:
            break
    sample = b"".join(telling)[:_GUESSED_ON]
    if _is_western(sample):
        return Encoding("cp1252")
    try:
        from charset_normalizer import from_bytes  # noqa: PLC0415 (seldom needed, and slow to import)
    except ImportError as error:
        raise TableError(
            f"{source.name} is not UTF-8; name its encoding with --encoding, or install what guesses it: "
            ".venv/bin/pip install -e '.[bulk]'"
        ) from error
    best = from_bytes(sample).best()
    if best is None:
        raise TableError(f"{source.name} is in no encoding that is recognised; name it with --encoding")
    return Encoding(codecs.lookup(best.encoding).name)


def _is_western(sample: bytes) -> bool:
    """Whether what is above ASCII is that of Western European text in cp1252.

    Spreadsheets write cp1252, and charset-normalizer takes short French or German for cp1250. Letters of
    other scripts mostly stand beside each other; bytes of other Latin alphabets are no letters here.
    """
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    above = [character for character in text if character > "\x7f"]
    beside = sum(a > "\x7f" and b > "\x7f" and a.isalpha() and b.isalpha() for a, b in pairwise(text))
    return beside < 0.6 * len(above) and sum(map(_WESTERN.__contains__, above)) >= 0.95 * len(above)

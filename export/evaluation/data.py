"""Texts and labels to evaluate on, from CSV, TSV or JSON Lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ExamplesError

MULTI_LABEL = "multi_label_classification"
Targets = npt.NDArray[np.bool_]
_WANTED = ("text", "label")
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
SHOWN, SHOWN_NAMES = 40, 10
Row = tuple[int, Mapping[str, Any]]  # line number, what it says
Reader = Callable[[str, str, Sequence[str]], Iterator[Row]]


@dataclass(frozen=True)
class Examples:
    """Texts with what they should be called, or pairs with their relevance.

    targets: bool [texts, labels], True for a text's labels (one a row unless the model is
    multi-label), or [pairs, 1], True for relevant texts; None if nothing is known, and then accuracy, or MRR,
    is not measured. queries: what each text is ranked for; None for a classifier's texts.
    """

    texts: tuple[str, ...]
    targets: Targets | None
    source: str
    by_number: bool = False
    """Whether labels were given as numbers, which were read as places in ``id2label``."""
    queries: tuple[str, ...] | None = None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Query and text of each pair; a classifier's texts have no query, and there are none."""
        return tuple(zip(self.queries or (), self.texts, strict=False))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Places of the texts of each query, in the order of the queries' first pairs."""
        found: dict[str, list[int]] = {}
        for place, query in enumerate(self.queries or ()):
            found.setdefault(query, []).append(place)
        return tuple(map(tuple, found.values()))


def load_examples(path: Path, labels: Sequence[str], problem_type: str) -> Examples:
    """Read ``text`` and ``label`` of every row; the extension .csv, .tsv or .jsonl gives the format.

    A label is a label's name (upper or lower case) or its index. Multi-label models take several:
    a list in JSON Lines, names joined by ``|`` elsewhere; none at all is allowed for them.

    Raises:
        ExamplesError: the file cannot be used; the message names the line and the remedy.
    """
    names = _Labels(labels, several=problem_type == MULTI_LABEL)
    texts: list[str] = []
    targets: list[Targets] = []
    for line, row in read_rows(path, _WANTED):
        where = f"{path.name}, line {line}"
        texts.append(checked_text(row["text"], where))
        targets.append(names.target(row["label"], where))
    if not texts:
        raise ExamplesError(f"{path.name} holds no texts; give rows of text and label.")
    return Examples(tuple(texts), np.array(targets, bool), path.name, names.by_number)


def read_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Every row of a file that names at least the wanted columns; raises ExamplesError."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ExamplesError(f"{path.name} ends in {path.suffix!r}; give a .csv, .tsv or .jsonl file.")
    return reader(path.name, _read(path), wanted)


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExamplesError(f"{path.name} cannot be read: {error.strerror}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ExamplesError(f"{path.name}, line {line}: not UTF-8; save the file as UTF-8.") from error


def checked_text(text: Any, where: str, column: str = "text") -> str:
    """A text of a row; raises ExamplesError if it is none, is empty, or cannot be UTF-8."""
    if not isinstance(text, str) or not text:
        raise ExamplesError(f"{where}: {column} must be a string that is not empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ExamplesError(f"{where}: the {column} has half a character (a lone surrogate).") from error
    return text


def _csv(name: str, content: str, wanted: Sequence[str]) -> Iterator[Row]:
    return _table(name, content, wanted, ",")


def _tsv(name: str, content: str, wanted: Sequence[str]) -> Iterator[Row]:
    return _table(name, content, wanted, "\t")


def _table(name: str, content: str, wanted: Sequence[str], delimiter: str) -> Iterator[Row]:
    # Strict: a stray quotation mark would otherwise swallow the rows up to the next one.
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        found = rows.fieldnames or ()
    except csv.Error as error:
        raise _unreadable(name, 0, error) from error
    if not set(found) >= set(wanted):
        raise ExamplesError(
            f"{name}, line 1: {_missing(found, wanted, 'column')}; its first line must name the columns, two "
            f"of them {' and '.join(wanted)}{_other_delimiter(found, delimiter)}."
        )
    try:
        for row in rows:
            if None in row or None in row.values():
                raise ExamplesError(
                    f"{name}, line {rows.line_num}: more or fewer columns than the header; "
                    "put texts that hold the separator in double quotes."
                )
            yield rows.line_num, row
    except csv.Error as error:
        raise _unreadable(name, rows.line_num, error) from error


def _unreadable(name: str, good: int, error: csv.Error) -> ExamplesError:
    """The row that could not be read begins after the last one that could."""
    where = f"{name}, line {good + 1}"
    if "field limit" in str(error):
        return ExamplesError(
            f"{where}: a text of more than {csv.field_size_limit()} characters; shorten it, or close the "
            "quotation mark before it."
        )
    return ExamplesError(
        f"{where}: {error}; put texts that hold quotation marks "
        "in double quotes, with every mark inside doubled."
    )


def _missing(found: Iterable[str], wanted: Sequence[str], kind: str) -> str:
    """Which of the wanted ones are not there, and what is."""
    found = list(found)
    missing = " and ".join(repr(each) for each in wanted if each not in found)
    shown = [repr(each if len(each) <= SHOWN else f"{each[: SHOWN - 1]}…") for each in found[:SHOWN_NAMES]]
    more = f" and {len(found) - SHOWN_NAMES} more" if len(found) > SHOWN_NAMES else ""
    return f"no {kind} {missing} among those found ({', '.join(shown) or 'none'}{more})"


def _other_delimiter(found: Sequence[str], delimiter: str) -> str:
    """A hint, where the whole header was taken for one column."""
    other = next((each for each in ("\t", ";", ",") if len(found) == 1 and each in found[0]), None)
    if other is None or other == delimiter:
        return ""
    return f", with {_DELIMITERS[delimiter]} between them and not {_DELIMITERS[other]}"


def _jsonl(name: str, content: str, wanted: Sequence[str]) -> Iterator[Row]:
    both = " and ".join(wanted)
    # Not splitlines(): a JSON string may hold U+2028, which ends no line here.
    for line, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExamplesError(f"{name}, line {line}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise ExamplesError(f"{name}, line {line}: no object; every line is one with {both}.")
        if not row.keys() >= set(wanted):
            raise ExamplesError(
                f"{name}, line {line}: {_missing(row, wanted, 'key')}; every line is an object with {both}."
            )
        yield line, row


_READERS: dict[str, Reader] = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl}


class _Labels:
    """Finds a label by name or index."""

    def __init__(self, names: Sequence[str], several: bool) -> None:
        self.names = names
        self.several = several
        self.by_number = False
        """Whether a label was found by its index."""
        # Later entries win: a label that is called "1" is not overruled by the index 1.
        self.index = {str(i): i for i in range(len(names))}
        self.index |= {name.casefold(): i for i, name in enumerate(names)}
        self.index |= {name: i for i, name in enumerate(names)}

    def target(self, label: Any, where: str) -> Targets:
        """Bool [labels]."""
        target = np.zeros(len(self.names), bool)
        found = [self._find(each, where) for each in self._split(label)]
        if not self.several and len(found) != 1:
            raise ExamplesError(f"{where}: {len(found)} labels; this model gives every text exactly one.")
        target[found] = True
        return target

    def _split(self, label: Any) -> list[Any]:
        if isinstance(label, list):
            return label
        if not isinstance(label, str) or label.strip() in self.index:
            return [label]
        parts = label.split("|") if self.several else [label]
        return [part for part in parts if part.strip()]

    def _find(self, label: Any, where: str) -> int:
        if isinstance(label, (str, int)) and not isinstance(label, bool):
            name = str(label).strip()
            for key in (name, name.casefold()):
                if key in self.index:
                    self.by_number |= key.isdecimal() and key not in self.names
                    return self.index[key]
        known = ", ".join(self.names[:20]) + (", …" if len(self.names) > 20 else "")
        raise ExamplesError(f"{where}: {label!r} is no label of this model; known are {known}.")

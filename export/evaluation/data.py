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

_MOST_CHARACTERS = 131_072
"""Of a text; more is taken for a quotation mark that is never closed."""
MULTI_LABEL = "multi_label_classification"
Targets = npt.NDArray[np.bool_]
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
    columns: str = ""
    """The columns or keys that were found in a file that has none with labels, for a message."""
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


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are called, or the keys of its objects.

    label: None takes ``label`` where it is there; a name must be there.
    """

    text: str = "text"
    label: str | None = None

    @property
    def labels(self) -> str:
        """The column of labels, whether it must be there or not."""
        return self.label or "label"

    def wanted(self, *others: str) -> tuple[str, ...]:
        """What a file must have; raises ExamplesError if two of them are one."""
        names = (*others, self.text, *([self.label] if self.label else ()))
        if len({*names, self.labels}) <= len(others) + 1:
            raise ExamplesError(
                "--text-column and --label-column must differ, and from query for a reranker."
            )
        return names


def load_examples(
    path: Path, labels: Sequence[str], problem_type: str, columns: Columns | None = None
) -> Examples:
    """Read text and, if it is there, label of every row; the extension .csv, .tsv or .jsonl gives the format.

    A label is a label's name (upper or lower case) or its index. Multi-label models take several:
    a list in JSON Lines, names joined by ``|`` elsewhere; none at all is allowed for them. A file without
    a column of labels gives texts whose labels are not known.

    Raises:
        ExamplesError: the file cannot be used; the message names the line and the remedy.
    """
    columns = columns or Columns()
    names = _Labels(labels, several=problem_type == MULTI_LABEL)
    texts: list[str] = []
    targets: list[Targets] = []
    found = ""
    for line, row in read_rows(path, columns.wanted()):
        where = f"{path.name}, line {line}"
        texts.append(checked_text(row[columns.text], where, columns.text))
        if columns.labels in row:
            targets.append(names.target(row[columns.labels], where))
        elif not found:
            found = shown(row)
        if len(targets) not in (0, len(texts)):
            raise ExamplesError(
                f"{where}: {columns.labels} stands in some rows only; give every row one, or none."
            )
    if not texts:
        raise ExamplesError(f"{path.name} holds no texts; give rows of {' and '.join(columns.wanted())}.")
    known = np.array(targets, bool) if targets else None
    return Examples(tuple(texts), known, path.name, names.by_number, columns=found)


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
    csv.field_size_limit(_MOST_CHARACTERS)  # of the whole process: another reader may have set it
    # Strict: a stray quotation mark would otherwise swallow the rows up to the next one.
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        found = rows.fieldnames or ()
    except csv.Error as error:
        raise _unreadable(name, 0, error) from error
    if not set(found) >= set(wanted):
        raise ExamplesError(
            f"{name}, line 1: {_missing(found, wanted, 'column')}; {_remedy(found, wanted, delimiter)}."
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
            f"{where}: a text of more than {_MOST_CHARACTERS} characters; shorten it, or close the "
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
    return f"no {kind} {missing} among those found ({shown(found)})"


def shown(names: Iterable[str]) -> str:
    """Columns or keys for a message: not all of them, and none at its whole length."""
    names = list(names)
    quoted = [repr(each if len(each) <= SHOWN else f"{each[: SHOWN - 1]}…") for each in names[:SHOWN_NAMES]]
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"{', '.join(quoted) or 'none'}{more}"


def _remedy(found: Sequence[str], wanted: Sequence[str], delimiter: str) -> str:
    """What to do about missing columns; the whole header may have been taken for one."""
    other = next((each for each in (";", "\t", ",") if len(found) == 1 and each in found[0]), None)
    if other is None or other == delimiter:
        both = " and ".join(wanted)
        return f"its first line must name {both}, or --text-column and --label-column name others"
    save = "call it .tsv" if other == "\t" else "save it with commas" if delimiter == "," else "call it .csv"
    return (
        f"its columns seem to be separated by {_DELIMITERS[other]}, and a file of this name must have "
        f"{_DELIMITERS[delimiter]}: {save}"
    )


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
                f"{name}, line {line}: {_missing(row, wanted, 'key')}; every line is an object with {both}, "
                "or --text-column and --label-column name other keys."
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

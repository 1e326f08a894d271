"""Tokenize a long text only as far as the model reads it, where the rest provably changes nothing.

A text may be cut between two characters if no step of the tokenizer looks across: the normalizer does not
combine them, the pre-tokenizer always separates them, and no added token contains both. Which
pairs of characters that holds for is decided once, from the types of the tokenizer's steps. All of them
are printable ASCII or Chinese characters: these never combine with their neighbours. Of a tokenizer with
a step that is not listed here, every text is read whole.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import Encoding, Tokenizer

FIRST_READ = 4
"""Characters for each token that are tokenized first; then ever four times as many, until they suffice."""
SEARCHED = 512
"""A place to cut is looked for among so many characters."""

_PUNCTUATION = r"!-/:-@\[-`{-~"
_CHINESE = "\u4e00-\u9fff"
# Between two plain characters of which one is a word by itself or a space: BERT's rules split there, whatever
# stands around. A third one follows, because the second could combine with something else.
_BERT = rf"(?<=[{{0}}])(?=[ -~{_CHINESE}]{{{{2}}}})|(?<=[ -~{_CHINESE}])(?=[{{0}}][ -~{_CHINESE}])"
# Before a single space: a space that follows another may belong to either word, or be joined with it.
_SPACE = re.compile(rf"(?<=[!-~{_CHINESE}])(?= [!-~{_CHINESE}])")

# Letters of which each is at least one letter of a word, to BERT's rules with and without accents.
_LETTERS = (
    r"0-9A-Za-z\u00c0-\u024f\u0391-\u03a1\u03a3-\u03c9\u0400-\u0481\u048a-\u052f\u05d0-\u05ea"
    r"\u0620-\u063a\u0641-\u064a\u3041-\u3096\u30a1-\u30fa\uac00-\ud7a3"
)

# Steps that turn each character into others without looking at more than what combines with it.
_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
_CHARACTER_WISE = {"BertNormalizer", "Lowercase", "StripAccents", *_FORMS}
_AT_SPACES = {"BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit"}
_MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}

Shorten = Callable[[str], str]


class TextParts:
    """Ever longer parts of a text, whose tokens are those that the whole text has there."""

    def __init__(self, tokenizer: Tokenizer, *, left: bool) -> None:
        """Find out where the tokenizer's texts may be cut; ``left`` keeps their ends."""
        self._left = left
        self._boundary, self._shorten = _rules(tokenizer, left=left)
        self._joined = _joined(tokenizer)

    def of(self, text: str, size: int) -> Iterator[str]:
        """Parts of about ``size`` characters, four times as many, and so on; the last is the whole text."""
        while self._boundary is not None and size < len(text):
            part = self._cut(text, size)
            if part:
                yield self._shorten(part)
            size *= 4
        yield self._shorten(text)

    def _cut(self, text: str, size: int) -> str:
        """About ``size`` characters of the side that is kept; empty where there is no place to cut."""
        if self._boundary is None:
            return ""
        start = len(text) - size if self._left else max(1, size - SEARCHED)
        # The pattern sees the characters around, so it is given the text itself and not a part of it.
        places = [
            match.start()
            for match in self._boundary.finditer(text, start, start + SEARCHED)
            if text[match.start() - 1 : match.start() + 1].lower() not in self._joined
        ]
        if not places:
            return ""
        return text[places[0] :] if self._left else text[: places[-1]]


class LongTextEncoder:
    """Encodes single texts as the tokenizer would, but may leave out what truncation would cut off anyway.

    The tokenizer truncates, on the configured side. ``overflowing`` of an encoding then holds less
    than all that was cut off, but is empty only if nothing was.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Find out where the tokenizer's texts may be cut."""
        self._tokenizer = tokenizer
        truncation: dict[str, Any] = tokenizer.truncation or {}
        self._first = FIRST_READ * int(truncation["max_length"])
        self._parts = TextParts(tokenizer, left=truncation["direction"] == "left")

    def encode_batch(self, texts: list[str]) -> list[Encoding]:
        """One after the other, so that the memory is that of one."""
        return [self.encode(text) for text in texts]

    def encode(self, text: str) -> Encoding:
        """Read ever more of the text until the model's limit is exceeded, or there is no more."""
        for part in self._parts.of(text, self._first):
            # Not encode(): it keeps the interpreter's lock.
            encoding = self._tokenizer.encode_batch_fast([part])[0]
            if encoding.overflowing:
                break
        return encoding


def _rules(tokenizer: Tokenizer, *, left: bool) -> tuple[re.Pattern[str] | None, Shorten]:
    """Where texts may be cut, and how they may be shortened without a change of their tokens."""
    normalizers = _steps(tokenizer.normalizer, "normalizers")
    pre_tokenizers = _steps(tokenizer.pre_tokenizer, "pretokenizers")
    added = tokenizer.get_added_tokens_decoder().values()
    model = tokenizer.model
    types = {step["type"] for step in normalizers}
    spaced = any(token.normalized and re.search(r"\s", token.content) for token in added)
    if spaced or type(model).__name__ not in _MODELS:
        return None, _as_it_is
    if types <= _CHARACTER_WISE and [step["type"] for step in pre_tokenizers] == ["BertPreTokenizer"]:
        chinese = any(step.get("handle_chinese_chars") for step in normalizers)
        words = f" {_PUNCTUATION}{_CHINESE if chinese else ''}"
        if any(token.single_word for token in added):
            words = " "  # such a token checks whether its neighbour is a letter, "_" or a Chinese character
        return re.compile(_BERT.format(words)), _shortening(tokenizer)
    splits = any(map(_splits_at_spaces, pre_tokenizers))
    if (
        splits
        and all(step["type"] in _AT_SPACES for step in pre_tokenizers)
        and all(_keeps_words_apart(step, left=left) for step in normalizers)
        and not (left and any(token.rstrip for token in added))
        and _leaves_plain_characters_alone(tokenizer)
    ):
        return _SPACE, _as_it_is
    return None, _as_it_is


def _steps(component: Any, nested: str) -> list[dict[str, Any]]:
    """The normalizers or pre-tokenizers that a component consists of, as tokenizer.json describes them."""
    if component is None:
        return []

    def flat(step: dict[str, Any]) -> list[dict[str, Any]]:
        return (
            [leaf for each in step[nested] for leaf in flat(each)] if step["type"] == "Sequence" else [step]
        )

    return flat(json.loads(component.__getstate__()))


def _splits_at_spaces(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer begins a new word at each single space, or ends one there."""
    switch = {"ByteLevel": "use_regex", "Metaspace": "split"}.get(step["type"])
    return step["type"] in _AT_SPACES and (switch is None or bool(step.get(switch, True)))


def _keeps_words_apart(step: dict[str, Any], *, left: bool) -> bool:
    """Whether a normalizer treats what stands before and after a single space each by itself."""
    match step["type"]:
        case "Precompiled" | "Nmt":
            return True  # graphemes, and single characters
        case "Strip":
            return not left  # the place to cut would be a beginning
        case "Replace":
            pattern = step["pattern"]
            if pattern == {"Regex": " {2,}"}:
                return True
            literal = pattern.get("String", " ")
            return " " not in literal and step["content"].strip() == step["content"] != ""
        case name:
            return name in _CHARACTER_WISE


def _leaves_plain_characters_alone(tokenizer: Tokenizer) -> bool:
    """Whether the normalizer changes nothing but the case; a SentencePiece table might map anything."""
    if tokenizer.normalizer is None:
        return True
    plain = " ".join(map(chr, [*range(0x21, 0x7F), *range(0x4E00, 0xA000)]))
    normalized: str = tokenizer.normalizer.normalize_str(plain)
    return normalized.split() in (plain.split(), plain.lower().split())


def _joined(tokenizer: Tokenizer) -> frozenset[str]:
    """Pairs of neighbours in added tokens, which are found before anything else splits the text."""
    contents = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if tokenizer.normalizer is not None:
        contents += [tokenizer.normalizer.normalize_str(content) for content in contents]
    return frozenset(
        content[at - 1 : at + 1].lower() for content in contents for at in range(1, len(content))
    )


def _shortening(tokenizer: Tokenizer) -> Shorten:
    """What BERT's rules drop, and words that are unknown because they are long, need not be read whole."""
    contents = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    longest = getattr(tokenizer.model, "max_input_chars_per_word", None)
    if type(tokenizer.model).__name__ != "WordPiece" or not isinstance(longest, int):
        return _as_it_is
    touching = re.compile(r"^\w|\w$|\s")
    if any(touching.search(content) or len(content) > longest for content in contents):
        return _as_it_is  # such a token may be found inside of a word, or reach into it
    composing = {step["type"] for step in _steps(tokenizer.normalizer, "normalizers")} & _FORMS
    letters = "0-9A-Za-z" if composing else _LETTERS
    run = re.compile(rf"([{letters}]{{{longest + 1}}})[{letters}]+| ( ) +")
    return lambda text: run.sub(r"\1\2", text)


def _as_it_is(text: str) -> str:
    return text

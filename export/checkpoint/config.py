"""``config.json``: what the model is, which labels it scores, and how many tokens it takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.checkpoint.files import display_name, read_object
from export.errors import CheckpointError

_log = logging.getLogger("tritonflare.export")

_PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")
_HEAD = "ForSequenceClassification"
# What transformers takes where the config is silent; save_pretrained leaves them out.
_DEFAULT_LABELS = 2
# Far more than any classifier has; a mistyped count must not fill the memory.
_MOST_LABELS = 10_000
_SHOWN_LABELS = 20
# Below this a tokenizer's own limit is a mistake rather than a choice.
_FEWEST_TOKENS = 8


@dataclass(frozen=True)
class Config:
    """The settings of one checkpoint; every method raises CheckpointError for what will not do."""

    name: str
    values: Mapping[str, Any]
    renamed: bool = False
    """Whether ``with_labels`` has named the labels."""

    @property
    def family(self) -> str:
        """``model_type``."""
        return str(self.values.get("model_type"))

    def count(self, key: str) -> int:
        """A positive whole number."""
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{self.name}: config.json sets {key} is {value!r}; it must be 1 or more.")
        return value

    def epsilon(self) -> float:
        """``layer_norm_eps``; 1e-12 where the config is silent, as in transformers."""
        value = self.values.get("layer_norm_eps", 1e-12)
        if not isinstance(value, float | int) or not 0 < value < 1:
            raise CheckpointError(f"{self.name}: config.json sets layer_norm_eps is {value!r}.")
        return float(value)

    def head_count(self, key: str, hidden: int) -> int:
        """Attention heads, which must share ``hidden`` out evenly."""
        heads = self.count(key)
        if hidden % heads:
            raise CheckpointError(
                f"{self.name}: {heads} attention heads cannot share {hidden} numbers evenly."
            )
        return heads

    def refuse_what_is_no_text_classifier(self) -> None:
        """Another head, a decoder, or relative positions, which transformers 5 itself gets wrong."""
        names = self.values.get("architectures") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(
                f"{self.name}: config.json sets architectures is {names!r}; it must be a list of names."
            )
        if names and not any(name.endswith(_HEAD) for name in names):
            raise CheckpointError(
                f"{self.name} is a {names[0]}, not a text classifier; fine-tune it with a "
                f"…{_HEAD} class first."
            )
        if self.values.get("is_decoder") or self.values.get("add_cross_attention"):
            raise CheckpointError(f"{self.name} is set up as a decoder; only encoders can be exported.")
        positions = self.values.get("position_embedding_type", "absolute")
        if positions != "absolute":
            raise CheckpointError(
                f"{self.name} uses {positions} position embeddings, which cannot be exported; "
                "only absolute ones can."
            )

    def with_labels(self, labels: Sequence[str]) -> Config:
        """The same with other names for its labels, in the order of the logits.

        Raises:
            CheckpointError: they are not all different, or not as many as the config counts.
        """
        before = self._label_names()
        counted = self.values.get("id2label") is not None or self._counts_labels
        if counted and len(labels) != len(before):
            named = ", ".join(before[:_SHOWN_LABELS]) + (", …" if len(before) > _SHOWN_LABELS else "")
            raise CheckpointError(
                f"--labels names {len(labels)}, and {self.name} has {len(before)}: {named}. Name all of "
                "them, in this order."
            )
        if not all(labels) or len(set(labels)) != len(labels):
            raise CheckpointError("--labels must be names that are all different and not empty.")
        named_so = {str(place): label for place, label in enumerate(labels)}
        return replace(self, values={**self.values, "id2label": named_so}, renamed=True)

    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits, all different; a reranker has one."""
        names = self._label_names()
        if not all(names) or len(set(names)) != len(names):
            raise CheckpointError(
                f"{self.name}: the labels {', '.join(names)} are not all different and not empty; "
                "correct id2label in its config.json."
            )
        return names

    def _label_names(self) -> tuple[str, ...]:
        names = self.values.get("id2label")
        if names is None:
            count = self.count("num_labels") if self._counts_labels else _DEFAULT_LABELS
            if count > _MOST_LABELS:
                raise CheckpointError(
                    f"{self.name}: config.json sets num_labels is {count}; "
                    f"at most {_MOST_LABELS} can be served."
                )
            return tuple(f"LABEL_{i}" for i in range(count))
        if not isinstance(names, dict) or not names:
            raise CheckpointError(
                f"{self.name}/config.json names no labels; add id2label to it, for example "
                '"id2label": {"0": "negative", "1": "positive"}.'
            )
        try:
            return tuple(self._label_name(names[str(i)]) for i in range(len(names)))
        except KeyError as error:
            raise CheckpointError(
                f"{self.name}/config.json has gaps in id2label: no label {error}; "
                'number the labels "0", "1", "2" and so on.'
            ) from error

    @property
    def _counts_labels(self) -> bool:
        return self.values.get("num_labels") is not None

    def other_labels(self, scored: int, named: int) -> CheckpointError:
        """The error of a model that scores another number of labels than ``labels`` gave."""
        if 1 in (scored, named):
            counts = ["1 label" if count == 1 else f"{count} labels" for count in (scored, named)]
            return CheckpointError(
                f"{self.name} scores {counts[0]} but its config names {counts[1]}. One label makes a "
                "reranker, which scores pairs of texts, and more make a classifier: correct id2label or "
                "num_labels in its config.json, or take the weights that belong to it."
            )
        if self.values.get("id2label") is None and not self._counts_labels:
            return CheckpointError(
                f"{self.name} scores {scored} labels, but its config.json has neither id2label nor "
                f"num_labels, which means {named}; add id2label with {scored} names to it."
            )
        who = "config or --labels" if self.renamed else "config"
        return CheckpointError(f"{self.name} scores {scored} labels but its {who} names {named}.")

    def _label_name(self, value: object) -> str:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise CheckpointError(
                f"{self.name}/config.json names a label {value!r} in id2label; give it a name in quotes."
            )
        return str(value)

    def task(self) -> str:
        """``rerank`` for one label, whatever it was trained for; ``classification`` for more."""
        return "rerank" if len(self.labels()) == 1 else "classification"

    def problem_type(self) -> str:
        """Softmax or one sigmoid per label; transformers' default is the first. One label has a sigmoid."""
        if len(self.labels()) == 1:
            return _PROBLEM_TYPES[1]
        value = self.values.get("problem_type") or _PROBLEM_TYPES[0]
        if value not in _PROBLEM_TYPES:
            raise CheckpointError(
                f"{self.name} is trained for {value!r}; only {' and '.join(_PROBLEM_TYPES)} can be served."
            )
        return str(value)

    def pad_id(self, default: int | None) -> int:
        """``pad_token_id``, or the family's default where the config is silent."""
        value = self.values.get("pad_token_id", default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise CheckpointError(
                f"{self.name}: config.json sets pad_token_id is {value!r}; name the padding token's id there."
            )
        return value


def read_config(folder: Path) -> Config:
    """``config.json`` of a folder; raises CheckpointError if it is missing or no JSON object."""
    return Config(display_name(folder), read_object(folder, "config.json"))


def tokens_limit(folder: Path, positions: int) -> int:
    """The longest input: as many as there are positions, or fewer if the tokenizer's config limits it."""
    if not (folder / "tokenizer_config.json").is_file():
        return positions
    limit = read_object(folder, "tokenizer_config.json").get("model_max_length")
    # "No limit" is written as 1e30 there.
    if not isinstance(limit, int | float) or not limit < positions:
        return positions
    if limit < _FEWEST_TOKENS:
        _log.warning(
            "%s: tokenizer_config.json sets model_max_length is %s, too few for a text; using %d",
            display_name(folder), limit, positions,
        )  # fmt: skip
        return positions
    return int(limit)

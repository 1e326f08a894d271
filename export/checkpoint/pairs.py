"""What the tokenizer of a reranker makes of a pair of texts, and whether its model can take it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from export.checkpoint.model import Checkpoint
from export.checkpoint.tokenizer import FILE, hands_token_types
from export.errors import CheckpointError, first_line
from export.rows import PairRow
from export.triton_models.pairs import NO_ROOM, PairEncoder, PairLayout, PairTokens, pair_layout

_log = logging.getLogger("tritonflare.export")


def check_pairs(tokenizer: Tokenizer, name: str, max_tokens: int) -> None:
    """Raises CheckpointError if no pair fits into ``max_tokens``, or pairs are made in an unknown way."""
    special = _layout(tokenizer, name).special
    if max_tokens < special + 2:
        raise CheckpointError(
            f"{name} takes {max(max_tokens, 0)} tokens, and its tokenizer adds {special} to every pair; "
            "too few are left for a query and a text."
        )


def types_of_pairs(folder: Path, name: str, tokenizer: Tokenizer, table: int) -> bool:
    """Whether transformers gives the model of a checkpoint pairs with token types other than 0.

    Args:
        folder: the checkpoint; its class of tokenizer decides whether types are handed over at all.
        name: what to call it.
        tokenizer: its tokenizer, without truncation.
        table: how many token types the model tells apart; 0 if it reads none.

    Raises:
        CheckpointError: the model has no row for a type that it would be given.
    """
    largest = _layout(tokenizer, name).largest_type
    if largest == 0 or table == 0:
        return False
    if not hands_token_types(folder):
        if table > 1:
            _log.warning(
                "%s knows %d token types, but its class of tokenizer gives it none in transformers 5; the "
                'scores are those of transformers 5. If it was trained with them, write "model_input_names": '
                '["input_ids", "token_type_ids", "attention_mask"] into tokenizer_config.json.',
                name, table,
            )  # fmt: skip
        return False
    if largest >= table:
        raise CheckpointError(
            f"{name}: its tokenizer gives pairs token types up to {largest}, the model knows {table}; if it "
            'reads none, write "model_input_names": ["input_ids", "attention_mask"] into '
            "tokenizer_config.json."
        )
    return True


class PairTokenizer:
    """Makes rows of pairs with the encoder that is served.

    Args:
        tokenizer: truncates at the side that counts, and not at all afterwards.
        checkpoint: whose tokenizer it is.
    """

    def __init__(self, tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
        side = (tokenizer.truncation or {}).get("direction", "right")
        tokenizer.no_truncation()
        self._encoder = PairEncoder(tokenizer, checkpoint.max_tokens, side)
        self._checkpoint = checkpoint

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[list[int] | None]:
        """Token ids of each pair, with types where the model reads them; None where the query leaves no room.

        Raises:
            CheckpointError: the tokenizer fails, or gives ids that the model has no row for.
        """
        return [None if row.token_count == NO_ROOM else self._checked(row) for row in self._encode(pairs)]

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[PairTokens]:
        try:
            return self._encoder.encode_batch(pairs)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers' PanicException is no Exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"the tokenizer of {self._checkpoint.name} cannot encode every pair ({reason})."
            ) from error

    def _checked(self, row: PairTokens) -> list[int]:
        name, vocabulary = self._checkpoint.name, self._checkpoint.vocabulary
        if not row.ids:
            raise CheckpointError(
                f"{name}: the tokenizer makes no tokens of some pairs; its {FILE} needs a post_processor "
                "that adds the special tokens."
            )
        if max(row.ids) >= vocabulary:
            raise CheckpointError(
                f"{name}: the tokenizer gives token id {max(row.ids)}, the model knows {vocabulary}; they "
                "do not belong together."
            )
        return PairRow(row.ids, row.types) if self._checkpoint.token_types else row.ids


def _layout(tokenizer: Tokenizer, name: str) -> PairLayout:
    try:
        return pair_layout(tokenizer)
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(
            f"the tokenizer of {name} cannot make pairs of texts ({first_line(error)})."
        ) from error

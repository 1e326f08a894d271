"""Tokenizer step of a reranker: QUERY, TEXT BYTES [n, 1] → what tokenizer.py gives, for each pair.

The encoder of some models also reads token_type_ids INT64 [n, S]; the configuration then names them as an
output. ``token_count`` is -1 where the query alone leaves no room for a token of the text; the row then
holds special tokens alone, whose logits mean nothing. How pairs are made stands in pairs.py.
"""

import json
from typing import Any

import triton_python_backend_utils as pb_utils

from .pairs import PairEncoder
from .tokenizer import Row
from .tokenizer import TritonPythonModel as TextTokenizer


class TritonPythonModel(TextTokenizer):
    """Triton's python backend calls ``initialize`` once and ``execute`` per batch."""

    INPUTS = "QUERY or TEXT"

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer, and learn whether the encoder reads token types."""
        outputs = json.loads(args["model_config"])["output"]
        self.token_types = any(output["name"] == "token_type_ids" for output in outputs)
        super().initialize(args)

    def prepare(self, max_tokens: int, side: str) -> None:
        """Truncation is the pair encoder's: tokenizers' own fails a batch for one long query."""
        self.tokenizer.no_truncation()
        self.pairs = PairEncoder(self.tokenizer, max_tokens, side)

    def read(self, request: Any) -> tuple[list[Any], int]:
        """The pairs of a request, and how many bytes there are to tokenize: a query counts once."""
        queries, texts = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel().tolist()
            for name in ("QUERY", "TEXT")
        )
        size = sum(map(len, set(queries))) + sum(map(len, texts))
        return list(zip(queries, texts, strict=True)), size

    def encode(self, texts: list[Any], *, long: bool) -> list[Row]:
        """Tokenize pairs of UTF-8 texts; ``long`` ones one after the other, as far as the model reads."""
        pairs = [(query.decode("utf-8"), text.decode("utf-8")) for query, text in texts]
        rows = self.pairs.encode_long(pairs) if long else self.pairs.encode_batch(pairs)
        # A row without any token would have nothing to attend to; its logits are ignored anyway.
        return [(ids or [self.pad_id], types or [0], count) for ids, types, count in rows]

"""The served graph and tokenizer, as a user of ONNX Runtime runs them in a server of their own.

The programs beside it import it, in the environments of the peers; nothing else does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

_TYPES = "token_type_ids"
"""An input that not every graph has."""


def peer_settings() -> Mapping[str, Any]:
    """What the environment variable ``PEER``, a JSON object, says about the model and the server."""
    described: Mapping[str, Any] = json.loads(os.environ["PEER"])
    return described


class OnnxModel:
    """Logits of encodings.

    ``PEER`` names ``model`` (a file; null: zeros for logits), ``tokenizer`` (a file), ``labels`` and
    ``max_tokens``. It may set ``group``, the most rows of a run (1 without it), ``padding``, the most tokens
    by which the longest row of a run exceeds the shortest, and ``all_cores``, with which a thread a core
    makes the runs. Without it, the calling thread makes them one after the other.
    """

    def __init__(self) -> None:
        """Load the files."""
        peer = peer_settings()
        self.labels: list[str] = peer["labels"]
        self.max_tokens: int = peer["max_tokens"]
        self.tokenizer = Tokenizer.from_file(peer["tokenizer"])
        self.tokenizer.no_padding()
        self._group: int = peer.get("group", 1)
        self._padding: int = peer.get("padding", 0)
        cores = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(cores) if peer.get("all_cores") else None
        options = ort.SessionOptions()
        # A run a core: a second thread would take another run's core.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        # A session can be run by several threads at once.
        self._session = peer["model"] and ort.InferenceSession(peer["model"], options, providers)
        self._typed = self._session and _TYPES in {each.name for each in self._session.get_inputs()}

    def logits(self, encodings: Sequence[Any]) -> Any:
        """FP32 [n, labels] in order; rows of like length are computed together."""
        found = np.zeros((len(encodings), len(self.labels)), np.float32)
        if not self._session:
            return found
        rows = [encoding.ids for encoding in encodings]
        types = [encoding.type_ids for encoding in encodings] if self._typed else None

        def run(group: Sequence[int]) -> None:
            found[group] = self._run(
                [rows[place] for place in group], types and [types[place] for place in group]
            )

        groups = self.groups(list(map(len, rows)))
        if self._pool is None:
            for group in groups:
                run(group)
        else:
            # The longest first, so that the threads end at about the same time.
            list(self._pool.map(run, reversed(list(groups))))
        return found

    def groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of the shortest rows first, those of like length together."""
        group: list[int] = []
        for place in sorted(range(len(lengths)), key=lengths.__getitem__):
            longest = lengths[group[0]] + self._padding if group else 0
            if group and (len(group) == self._group or lengths[place] > longest):
                yield group
                group = []
            group.append(place)
        yield group

    def _run(self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> Any:
        """Logits FP32 [n, labels] of n rows of token ids and, where the graph reads them, token types."""
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = row
            mask[line, : len(row)] = 1
        tensors = {"input_ids": ids, "attention_mask": mask}
        if types is not None:
            tensors[_TYPES] = np.zeros_like(ids)
            for line, row in enumerate(types):
                tensors[_TYPES][line, : len(row)] = row
        (logits,) = self._session.run(None, tensors)
        return logits

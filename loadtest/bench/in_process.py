"""The served model without any server: what the machine can do at most."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from loadtest.bench.figures import Sample, timed

GROUP = 8
WINDOW = 64
"""Texts that are sorted together: what a server would have at hand, not the whole set."""


class InProcess:
    """ONNX Runtime on the very file that is served, tokenization included; a thread and session a core."""

    def __init__(self, model: Path, tokenizer: Path, texts: Sequence[str], max_tokens: int = 512) -> None:
        self._texts = list(texts)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        cores = len(os.sched_getaffinity(0))
        providers = ["CPUExecutionProvider"]
        self._sessions = [ort.InferenceSession(str(model), options, providers) for _ in range(cores)]

    def alone(self, seconds: float) -> Sample:
        """One text at a time on one core, the others idle: the model's own time for a lone request."""
        latencies: list[float] = []
        begin = before = time.perf_counter()
        while before - begin < seconds:
            text = self._texts[len(latencies) % len(self._texts)]
            _run(self._sessions[0], [self._tokenizer.encode(text).ids])
            now = time.perf_counter()
            latencies.append(now - before)
            before = now
        return timed(latencies, before - begin)

    def one_by_one(self, seconds: float) -> Sample:
        """All cores, every text in a run of its own."""
        return self._all_cores(seconds, 1)

    def sorted_groups(self, seconds: float) -> Sample:
        """All cores, texts of like length in runs of GROUP."""
        return self._all_cores(seconds, GROUP)

    def _all_cores(self, seconds: float, group: int) -> Sample:
        def work(number: int) -> tuple[int, float]:
            return self._work(number, group, seconds)

        with ThreadPoolExecutor(len(self._sessions)) as pool:
            found = list(pool.map(work, range(len(self._sessions))))
        # Each by its own time: one that ends a window later must not count as an idle core.
        return {
            "rate": sum(done / elapsed for done, elapsed in found),
            "texts": sum(done for done, _ in found),
        }

    def _work(self, number: int, group: int, seconds: float) -> tuple[int, float]:
        """Texts that one core did, and in how many seconds; each core begins at another place."""
        place = number * len(self._texts) // len(self._sessions)
        done = 0
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            part = [self._texts[(place + offset) % len(self._texts)] for offset in range(WINDOW)]
            place += WINDOW
            rows = sorted((encoding.ids for encoding in self._tokenizer.encode_batch_fast(part)), key=len)
            for first in range(0, len(rows), group):
                _run(self._sessions[number], rows[first : first + group])
            done += len(rows)
        return done, elapsed


def _run(session: ort.InferenceSession, rows: Sequence[Sequence[int]]) -> None:
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
        mask[line, : len(row)] = 1
    session.run(None, {"input_ids": ids, "attention_mask": mask})

"""What the device can do at most: the served graph inside this process, on tokens made beforehand."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from export.rows import pad
from export.triton_models.text_queue import GpuGroupPolicy
from loadtest.bench.figures import Sample
from tools.gpu_check.models import Model
from tools.gpu_check.session import DeviceSession

_PAD_MULTIPLE = GpuGroupPolicy().multiple


class Ceiling:
    """The graph of one precision on the device."""

    def __init__(self, model: Model, device: str) -> None:
        self._session = DeviceSession(model.graph, device)
        self._tokenizer = Tokenizer.from_file(str(model.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(model.max_tokens)

    def measure(self, texts: Sequence[str], group: int, seconds: float) -> Sample:
        """Texts a second in groups of ``group`` texts of like length, padded as the served encoder pads.

        The first pass over all groups is not counted: it takes memory, and chooses kernels.
        """
        rows = sorted((each.ids for each in self._tokenizer.encode_batch_fast(list(texts))), key=len)
        rows = (rows * -(-group // len(rows)))[: max(group, len(rows) // group * group)]
        batches = []
        for first in range(0, len(rows), group):
            ids, mask = pad(rows[first : first + group])
            extra = ((0, 0), (0, -ids.shape[1] % _PAD_MULTIPLE))
            batches.append((np.pad(ids, extra), np.pad(mask, extra)))
        for ids, mask in batches:
            self._session.run(ids, mask)
        done, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            ids, mask = batches[done // group % len(batches)]
            self._session.run(ids, mask)
            done += group
        return {"rate": done / elapsed, "texts": done}

"""What the device can do at most: the served graph inside this process, on tokens that lie on the device."""

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
    """The graph of one precision on the device.

    Nothing is tokenized, queued or copied meanwhile: ids and mask were copied to the device before, and
    logits stay there. One run is in flight, as in the server.
    """

    def __init__(self, model: Model, device: str) -> None:
        self._session = DeviceSession(model.graph, device)
        self._tokenizer = Tokenizer.from_file(str(model.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(model.max_tokens)

    def mean_tokens(self, texts: Sequence[str]) -> float:
        """Tokens of a text, on average."""
        return float(np.mean([len(each.ids) for each in self._tokenizer.encode_batch_fast(list(texts))]))

    def measure(self, texts: Sequence[str], group: int, seconds: float) -> Sample:
        """Texts a second in groups of ``group`` texts of like length, padded as the served encoder pads.

        A first pass of at most ``seconds`` is not counted: it takes memory, and chooses kernels. Groups that
        it did not come to are left out.
        """
        rows = sorted((each.ids for each in self._tokenizer.encode_batch_fast(list(texts))), key=len)
        rows = (rows * -(-group // len(rows)))[: max(group, len(rows) // group * group)]
        runs = []
        begin = time.perf_counter()
        # From both ends to the middle, so that groups of all lengths come early.
        starts = list(range(0, len(rows), group))
        for first in [starts.pop(-(place % 2)) for place in range(len(starts))]:
            ids, mask = pad(rows[first : first + group])
            extra = ((0, 0), (0, -ids.shape[1] % _PAD_MULTIPLE))
            run = self._session.on_device(np.pad(ids, extra), np.pad(mask, extra))
            run()
            runs.append(run)
            if time.perf_counter() - begin > seconds:
                break
        done, begin = 0, time.perf_counter()
        while not done or time.perf_counter() - begin < seconds:
            runs[done % len(runs)]()
            done += 1
        return {"rate": done * group / (time.perf_counter() - begin), "texts": done * group}

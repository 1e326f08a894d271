"""What a measurement cost: CPU time of each program, the batches that Triton made, and what GPUs did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtest.bench.figures import Sample
from loadtest.bench.gpu import Gpus
from loadtest.bench.grpc_client import Counts, Statistics
from loadtest.bench.null_repository import ModelFolders
from loadtest.bench.padding import Grouping, padding_efficiency
from loadtest.bench.processes import ProcessTree, cpu_of_us_s


@dataclass(frozen=True)
class Meter:
    """Adds to a sample what was used while it was taken.

    trees: name of a program → its processes. model: whose batches are counted.
    lengths: tokens of the texts that are asked. grouping: the encoder's, None where it has none.
    gpus: the devices that serve, None where there are none to read.
    """

    trees: Mapping[str, ProcessTree]
    statistics: Statistics
    model: ModelFolders
    lengths: Sequence[int]
    grouping: Grouping | None
    gpus: Gpus | None = None

    def around(self, measure: Callable[[], Sample]) -> Sample:
        """The sample with ``NAME_cpu_s`` per 1,000 texts, ``call_texts`` and ``…_batch``: mean sizes.

        With GPUs also `gpu.figures`.
        """
        cpu, counts = self._cpu(), self._counts()
        sample = measure() if self.gpus is None else self.gpus.around(measure)
        used = self._cpu()
        found = {name: after - counts[name] for name, after in self._counts().items()}
        sample |= {f"{name}_cpu_s": 1000 * (used[name] - cpu[name]) / sample["texts"] for name in cpu}
        if found["ensemble"].requests:
            sample["call_texts"] = found["ensemble"].texts / found["ensemble"].requests
        for step in ("tokenizer", "encoder"):
            if found[step].executions:
                sample[f"{step}_batch"] = found[step].texts / found[step].executions
        if self.grouping is not None and found["encoder"].sizes:
            sample["padding_efficiency"] = padding_efficiency(
                found["encoder"].sizes, self.lengths, self.grouping
            )
        return sample

    def _cpu(self) -> dict[str, float]:
        return {name: tree.cpu_s() for name, tree in self.trees.items()} | {"load": cpu_of_us_s()}

    def _counts(self) -> dict[str, Counts]:
        return {name: self.statistics.read(model) for name, model in vars(self.model).items()}

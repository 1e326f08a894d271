"""Write the ONNX files of one export, a folder for each artefact."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from export.artefact import Artefact
from export.evaluation.evaluate import Progress
from export.evaluation.metrics import answers
from export.files import write_atomically
from export.plan import ExportPlan
from export.quantise.candidates import build_int8, sensitivity
from export.source import Source

CALIBRATION_TEXTS = 128
SENSITIVITY_TEXTS = 32
INT8 = "int8-"
WIDE = "-wide"


@dataclass
class Builder:
    """Makes the artefacts of one source; FP32 is written once and the INT8 ones are made from it.

    files: artefact → ONNX file, in the order they were made. saturates: INT8
    products of the CPU that serves can overflow 16 bits, so the weights use half their range.
    """

    plan: ExportPlan
    source: Source
    folder: Path
    saturates: bool
    progress: Progress
    files: dict[str, Path] = field(default_factory=dict)

    def write_all(self) -> None:
        """Every artefact that the plan asks for; FP32 first."""
        self._fp32 = self.source.route.fp32_graph("cpu" if self.plan.target == "cpu" else "fused")
        for precision in self.plan.precisions:
            if precision == "fp32":
                self._write("fp32", lambda: self._fp32)
            elif precision == "fp16":
                # FP16 is for GPUs; on a CPU it is only compared.
                self._write("fp16", lambda: self.source.route.fp16_graph("fused"))
            else:
                for scheme in self.plan.schemes:
                    self._write(INT8 + scheme, lambda scheme=scheme: self._int8(scheme))  # type: ignore[misc]

    def write_wide(self, passes: Callable[[str], bool]) -> str | None:
        """A token-wise INT8 artefact with as few FP32 weights as make it pass, most sensitive first.

        Args:
            passes: whether the artefact of that name is good enough.

        Returns:
            Its name; None if half of all weights in FP32 is not enough.
        """
        name = f"{INT8}token{WIDE}"
        self.progress.step("measuring the sensitivity of single weights")
        order = list(sensitivity(self._fp32, self._token, self._score, self.progress.advance))
        count = 1
        while count <= max(1, len(order) // 2):
            wide = [weight for group in order[:count] for weight in group]
            self._write(name, lambda wide=wide: self._token(wide))  # type: ignore[misc]
            if passes(name):
                return name
            count *= 2
        del self.files[name]
        return None

    def _int8(self, scheme: str) -> onnx.ModelProto:
        rows = self.source.rows[:: max(1, len(self.source.rows) // CALIBRATION_TEXTS)]
        return build_int8(self._fp32, scheme, rows, saturates=self.saturates)

    def _token(self, wide: Collection[str]) -> onnx.ModelProto:
        return build_int8(self._fp32, "token", (), saturates=self.saturates, wide=wide)

    def _score(self, model: onnx.ModelProto) -> npt.NDArray[np.float64]:
        rows = self.source.rows[:: max(1, len(self.source.rows) // SENSITIVITY_TEXTS)]
        artefact = Artefact(model.SerializeToString(), len(self.source.checkpoint.labels))
        return answers(artefact.alone(rows), self.source.checkpoint.problem_type).scores

    def _write(self, name: str, make: Callable[[], onnx.ModelProto]) -> None:
        self.progress.step(f"writing {name}")
        self.files[name] = self.folder / name / "model.onnx"
        write_atomically(self.files[name], make().SerializeToString(deterministic=True))

"""OpenVINO beside ONNX Runtime, for comparison alone: measured, put into the report, never published.

Served models run in ONNX Runtime; this says what that choice costs on the host at hand. Needs the
extra ``openvino``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.artefact import Ids, Logits
from export.errors import ExportError
from export.evaluation.runner import Candidate

NAMES = ("openvino-bf16", "openvino-static", "openvino-weights")


class _Compiled:
    def __init__(self, file: Path, threads: int, settings: dict[str, Any]) -> None:
        import openvino  # noqa: PLC0415 (an extra)

        hints = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        self._request = openvino.Core().compile_model(file, "CPU", hints | settings).create_infer_request()

    def run(self, ids: Ids, mask: Ids) -> Logits:
        """As `export.evaluation.runner.Runner`."""
        found = self._request.infer({"input_ids": ids, "attention_mask": mask})[0]
        return np.array(found, np.float32)


def openvino_candidates(
    model: onnx.ModelProto, rows: Sequence[Sequence[int]], folder: Path
) -> dict[str, Candidate]:
    """The same classifier in OpenVINO: BF16, static INT8 (NNCF), INT8 weights with dynamic activations.

    Args:
        model: FP32, standard operators only.
        rows: token ids of calibration texts.
        folder: where the converted models go.

    Raises:
        ExportError: the extra is not installed.
    """
    try:
        import nncf  # noqa: PLC0415 (an extra)
        import openvino  # noqa: PLC0415
    except ImportError as error:
        raise ExportError("comparing with OpenVINO needs: .venv/bin/pip install -e '.[openvino]'.") from error
    nncf.set_log_level("ERROR")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "plain.onnx"
    onnx.save(model, source)

    def read() -> Any:
        return openvino.Core().read_model(source)

    def calibration() -> Any:
        inputs = (
            {"input_ids": (ids := np.array([row], np.int64)), "attention_mask": np.ones_like(ids)}
            for row in rows
        )
        return nncf.Dataset(list(inputs))

    makers: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "openvino-bf16": (read, {"INFERENCE_PRECISION_HINT": "bf16"}),
        "openvino-static": (
            lambda: nncf.quantize(
                read(), calibration(), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
            ),
            {"INFERENCE_PRECISION_HINT": "f32"},
        ),
        "openvino-weights": (
            lambda: nncf.compress_weights(read(), mode=nncf.CompressWeightsMode.INT8_SYM),
            {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 2**32 - 1},
        ),
    }
    candidates = {}
    for name, (make, settings) in makers.items():
        file = folder / f"{name}.xml"
        openvino.save_model(make(), file, compress_to_fp16=False)
        candidates[name] = Candidate("int8", file.with_suffix(".bin").stat().st_size, _opener(file, settings))
    return candidates


def _opener(file: Path, settings: dict[str, Any]) -> Callable[[int], _Compiled]:
    return lambda threads: _Compiled(file, threads, settings)

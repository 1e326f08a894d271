"""Messages of the Open Inference Protocol (KServe v2): TEXT in, probabilities and token counts out.

Tensors travel as raw contents: row-major, little-endian, each element of BYTES behind its length.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import service_pb2

from loadtest.checks import Scores

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OUTPUTS = ("probabilities", "token_count")


def infer_request(model: str, texts: Sequence[str], outputs: Sequence[str] = ()) -> Any:
    """A ModelInferRequest for TEXT BYTES [n, 1]; all outputs if none is named."""
    request = service_pb2.ModelInferRequest(model_name=model)
    add_texts(request, texts)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def add_texts(request: Any, texts: Sequence[str], name: str = "TEXT") -> None:
    """Add ``texts`` to a request as the input ``name``, BYTES [n, 1]."""
    request.inputs.add(name=name, datatype="BYTES", shape=[len(texts), 1])
    parts = [text.encode() for text in texts]
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(part)) + part for part in parts))


def read_labels(config: Any) -> list[str]:
    """The model's labels in order, from the parameters of a ModelConfigResponse.

    Raises:
        ValueError: they are not a JSON array of at least two different strings.
    """
    labels = json.loads(config.config.parameters["labels"].string_value)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("the labels are not a list of strings")
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise ValueError("fewer than two labels, or one twice")
    return labels


def is_reranker(config: Any) -> bool:
    """Whether a ModelConfigResponse describes a model that reads pairs."""
    return any(tensor.name == "QUERY" for tensor in config.config.input)


def read_scores(response: Any, model: str, labels: Sequence[str], texts: int) -> list[Scores]:
    """The probabilities of each of ``texts`` texts in a ModelInferResponse.

    Raises:
        ValueError: the response is of another model, has not exactly OUTPUTS, or a datatype, a shape or a
            value is not as documented.
    """
    if response.model_name != model or len(response.outputs) != len(response.raw_output_contents):
        raise ValueError("not an answer of this model with raw contents")
    named = {
        output.name: (output, raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    if set(named) != set(OUTPUTS):
        raise ValueError("other outputs than those that were requested")
    values = _values(*named["probabilities"], "FP32", (texts, len(labels)))
    counts = _values(*named["token_count"], "INT32", (texts, 1))
    if not all(0 <= value <= 1 for value in values) or min(counts) < 1:  # NaN is out of range
        raise ValueError("a probability outside 0…1, or a text without tokens")
    rows = (values[start : start + len(labels)] for start in range(0, len(values), len(labels)))
    return [dict(zip(labels, row, strict=True)) for row in rows]


def _values(output: Any, raw: bytes, datatype: str, shape: tuple[int, ...]) -> tuple[float, ...]:
    if output.datatype != datatype or tuple(output.shape) != shape:
        raise ValueError(f"output {output.name} is not {datatype} {list(shape)}")
    code = f"<{shape[0] * shape[1]}{'f' if datatype == 'FP32' else 'i'}"
    if len(raw) != struct.calcsize(code):
        raise ValueError(f"the contents of output {output.name} do not fill its shape")
    return struct.unpack(code, raw)


def to_fp32(scores: Scores) -> Scores:
    """Round scores to the nearest FP32 values, as the protocol carries them."""
    code = f"<{len(scores)}f"
    return dict(zip(scores, struct.unpack(code, struct.pack(code, *scores.values())), strict=True))

"""Architectures that we do not write ourselves, exported by torch; needs the extra ``torch``.

torch is imported inside the functions: nothing else of the export, and nothing of serving, may
need it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from export.checkpoint.model import Checkpoint
from export.checkpoint.torch_model import without_noise
from export.errors import CheckpointError, ExportError, first_line
from export.rows import types_of
from export.spec import ENCODER_INPUTS, TYPE_IDS

_OPSET = 18
_TRACED = (2, 7)  # texts and tokens; a dimension of 1 would be taken for a constant


class TorchRoute:
    """Graphs traced by ``torch.onnx.export``, compared with torch itself."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def fp32_graph(self, flavour: str) -> onnx.ModelProto:
        """Standard operators in either flavour; raises ExportError if torch cannot trace the model."""
        del flavour  # ONNX Runtime's optimizer fuses nothing in what this exporter writes
        return self._traced

    def fp16_graph(self, flavour: str) -> onnx.ModelProto:
        """The FP32 graph converted, but for the arithmetic of indices."""
        from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

        model = onnx.ModelProto()
        model.CopyFrom(self.fp32_graph(flavour))
        try:
            with without_noise():
                half: onnx.ModelProto = convert_float_to_float16(
                    model, keep_io_types=True, node_block_list=_index_arithmetic(model.graph)
                )
        except Exception as error:  # the converter's own, over operators that it does not know
            raise ExportError(
                f"{self._checkpoint.name} cannot be converted to FP16 ({first_line(error)}); choose "
                "--precision fp32 --quick."
            ) from error
        return half

    def reference(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Logits [N, labels] by torch in FP32, each text alone."""
        import torch  # noqa: PLC0415

        found = []
        for row in rows:
            try:
                inputs = [list(row), [1] * len(row), types_of(row)][: len(self._inputs)]
                with torch.no_grad():
                    found.append(self._module(*(torch.tensor([each]) for each in inputs)))
            except Exception as error:  # the model's own code may raise anything
                raise CheckpointError(
                    f"{self._checkpoint.name}, a {self._checkpoint.family!r} model, cannot score a text of "
                    f"{len(row)} tokens ({first_line(error)})."
                ) from error
        return torch.cat(found).double().numpy()  # type: ignore[no-any-return]

    @cached_property
    def _traced(self) -> onnx.ModelProto:
        import torch  # noqa: PLC0415

        ids = torch.ones(_TRACED, dtype=torch.int64)
        axes = {0: "batch", 1: "sequence"}
        module, inputs = self._module, self._inputs
        try:
            # Where it gives up, torch writes the whole graph to stderr, a hundred lines and more.
            with without_noise(), redirect_stderr(io.StringIO()):
                program = torch.onnx.export(
                    module,
                    tuple(torch.ones_like(ids) for _ in inputs),
                    input_names=list(inputs),
                    output_names=["logits"],
                    dynamic_shapes=(axes,) * len(inputs),
                    opset_version=_OPSET,
                    dynamo=True,
                    verbose=False,
                )
                model: onnx.ModelProto = program.model_proto
        except Exception as error:  # the tracer's errors, and anything that the model's code raises
            raise ExportError(
                f"torch cannot export {self._checkpoint.name}, a {self._checkpoint.family!r} model "
                f"({first_line(_cause(error))}); take a model of another architecture. --verbose shows where "
                "torch stopped."
            ) from error
        _forget_where_it_was_made(model)
        return model

    @property
    def _inputs(self) -> tuple[str, ...]:
        return (*ENCODER_INPUTS, TYPE_IDS) if self._checkpoint.token_types else ENCODER_INPUTS

    @cached_property
    def _module(self) -> Any:
        """ids, mask and types where there are any → logits FP32, independent of the padding's ids."""
        import torch  # noqa: PLC0415

        model, pad_id = self._checkpoint.torch_model, self._checkpoint.pad_id

        class Logits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, input_ids: Any, attention_mask: Any) -> Any:
                # Some models number positions or choose the token to pool by the ids themselves.
                ids = torch.where(attention_mask == 0, pad_id, input_ids)
                return self.model(input_ids=ids, attention_mask=attention_mask).logits.float()

        class PairLogits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
                ids = torch.where(attention_mask == 0, pad_id, input_ids)
                mask, types = attention_mask, token_type_ids
                return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits.float()

        return (PairLogits if self._checkpoint.token_types else Logits)().eval()


def _cause(error: Exception) -> Exception:
    """The exporter wraps errors into advice for authors of models."""
    return error.__cause__ if isinstance(error.__cause__, Exception) else error


def _index_arithmetic(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes whose floats become integers.

    Relative positions are put into buckets by a logarithm: rounded to FP16 first, a few of
    them would land in the neighbouring bucket and read another row of the table.
    """
    makers = {output: node for node in graph.node for output in node.output}
    integers = (TensorProto.INT32, TensorProto.INT64)
    waiting = [
        node
        for node in graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i in integers for a in node.attribute)
    ]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found.add(node.name)
            waiting += [makers[name] for name in node.input if name in makers]
    return sorted(found)


def _forget_where_it_was_made(model: onnx.ModelProto) -> None:
    """Traces quote the source files of this machine, and no two machines would give the same bytes."""
    for node in [*model.graph.node, *(node for part in model.functions for node in part.node)]:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""

"""Architectures that we do not write ourselves, exported by torch; needs the extra ``torch``.

torch and transformers are imported inside the functions: nothing else of the export, and
nothing of serving, may need them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from export.checkpoint.model import Checkpoint
from export.errors import CheckpointError, ExportError

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
        with _without_noise():
            half: onnx.ModelProto = convert_float_to_float16(
                model, keep_io_types=True, node_block_list=_index_arithmetic(model.graph)
            )
        return half

    def reference(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Logits [N, labels] by torch in FP32, each text alone."""
        import torch  # noqa: PLC0415

        with torch.no_grad():
            found = [
                self._module(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.int64)) for row in rows
            ]
        return torch.cat(found).double().numpy()  # type: ignore[no-any-return]

    @cached_property
    def _traced(self) -> onnx.ModelProto:
        import torch  # noqa: PLC0415

        ids = torch.ones(_TRACED, dtype=torch.int64)
        axes = {0: "batch", 1: "sequence"}
        module = self._module
        try:
            with _without_noise():
                program = torch.onnx.export(
                    module,
                    (ids, torch.ones_like(ids)),
                    input_names=["input_ids", "attention_mask"],
                    output_names=["logits"],
                    dynamic_shapes=(axes, axes),
                    opset_version=_OPSET,
                    dynamo=True,
                    verbose=False,
                )
                model: onnx.ModelProto = program.model_proto
        except Exception as error:  # the tracer's own, and whatever the model's code raises under it
            raise ExportError(
                f"torch cannot export {self._checkpoint.name}, a {self._checkpoint.family!r} model "
                f"({_first_line(error)})."
            ) from error
        _forget_where_it_was_made(model)
        return model

    @cached_property
    def _module(self) -> Any:
        """ids, mask → logits FP32, whatever ids the padding has."""
        import torch  # noqa: PLC0415

        model, pad_id = _load(self._checkpoint), self._checkpoint.pad_id

        class Logits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, input_ids: Any, attention_mask: Any) -> Any:
                # Some models number positions or choose the token to pool by the ids themselves.
                ids = torch.where(attention_mask == 0, pad_id, input_ids)
                return self.model(input_ids=ids, attention_mask=attention_mask).logits.float()

        return Logits().eval()


def _load(checkpoint: Checkpoint) -> Any:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    try:
        with _without_noise():
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                str(checkpoint.folder),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except Exception as error:  # whatever transformers raises over files that others wrote
        raise CheckpointError(
            f"transformers cannot read {checkpoint.name} ({_first_line(error)})."
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{checkpoint.name} has no tensor {missing[0]!r}; it is no trained text classifier."
        )
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"{checkpoint.name}: tensor {name!r} holds numbers that are not finite.")
    if model.config.num_labels != len(checkpoint.labels):
        raise CheckpointError(
            f"{checkpoint.name} scores {model.config.num_labels} labels but its config names "
            f"{len(checkpoint.labels)}."
        )
    return model


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


@contextmanager
def _without_noise() -> Iterator[None]:
    """Warnings about other people's code help nobody at the terminal; errors still come through."""
    import transformers  # noqa: PLC0415

    level = transformers.logging.get_verbosity()
    exporter = logging.getLogger("torch.onnx")
    before = exporter.level
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(before)
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

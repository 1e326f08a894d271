"""A thin layer over ``onnx.helper``: unique names, shared constants, one model at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from export.errors import ExportError
from export.spec import ENCODER_INPUTS

OPSET = 17
"""What ONNX Runtime 1.19 (Triton 24.10) and TensorRT read; newer graphs name theirs."""
# By opset, the least that onnx allows: ONNX Runtime 1.19 still reads 8, and 1.23 reads 11.
_IR_VERSIONS = {17: 8, 23: 11}
MICROSOFT = "com.microsoft"
# protobuf serialises no message of 2 GiB or more; nodes and names need a little of that too.
LARGEST_BYTES = 2**31 - 2**24


class GraphBuilder:
    """Collects nodes and constants in order; every method returns the name of what it made."""

    def __init__(self, name: str, prefix: str = "", opset: int = OPSET) -> None:
        # Everything goes straight into the model: helper.make_model would copy the weights twice.
        self._model = onnx.ModelProto(producer_name="tritonflare")
        self._graph = self._model.graph
        self._graph.name = name
        self._prefix = prefix
        self.opset = opset
        self._constants: set[str] = set()
        self._declared: set[str] = set()
        self._cached: dict[str, str] = {}
        self._bytes = 0
        self._count = 0

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """An initializer; asking again for a name that exists returns it.

        Raises:
            ExportError: the constants together are too large for one ONNX file.
        """
        if name in self._constants:
            return name
        array = np.asarray(value, order="C")
        self._bytes += array.nbytes
        if self._bytes > LARGEST_BYTES:
            raise ExportError(
                "the weights are too large for one ONNX file (2 GiB); export a smaller checkpoint."
            )
        self._constants.add(name)
        self._graph.initializer.add(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            raw_data=array.tobytes(),
        )
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        self._count += 1
        name = f"{self._prefix}{kind}_{self._count}"
        node = helper.make_node(kind, list(inputs), [name], name, domain=domain, **attributes)
        self._graph.node.append(node)
        return name

    def row_maximum(self, x: str, *, keep_axis: bool) -> str:
        """The largest number of each row [..., n], as [..., 1] or as [...]."""
        if self.opset < 18:
            return self.op("ReduceMax", x, axes=[-1], keepdims=int(keep_axis))
        # Since opset 18 the axes are an input.
        return self.op("ReduceMax", x, self.last_axis(), keepdims=int(keep_axis))

    def last_axis(self) -> str:
        """INT64 [1], -1."""
        return self.constant(f"{self._prefix}last_axis", np.array([-1]))

    def cached(self, key: str, make: Callable[[], str]) -> str:
        """The result of ``make``, which is called for the first request of a key only."""
        if key not in self._cached:
            self._cached[key] = make()
        return self._cached[key]

    def declare_matrix(self, x: str, dtype: npt.DTypeLike, rows: str, width: int) -> None:
        """Write down, once, that ``x`` is [rows, width]; tensors that share ``rows`` have equally many."""
        if x not in self._declared:
            self._declared.add(x)
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            self._graph.value_info.append(helper.make_tensor_value_info(x, kind, [rows, width]))

    def keep(self, node: onnx.NodeProto) -> None:
        """A node of another graph, as it is."""
        self._graph.node.append(node)

    def rename_last(self, name: str) -> None:
        """Give the last node's only output its public name."""
        self._graph.node[-1].output[0] = name

    def model(
        self, labels: int, metadata: dict[str, str], inputs: Sequence[str] = ENCODER_INPUTS
    ) -> onnx.ModelProto:
        """The finished model: ``inputs`` INT64 [B, S] → logits FP32 [B, labels]."""
        for name in inputs:
            self._graph.input.append(
                helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            )
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])
        self._graph.output.append(logits)
        self._model.ir_version = _IR_VERSIONS[self.opset]
        self._model.opset_import.append(helper.make_opsetid("", self.opset))
        if any(node.domain == MICROSOFT for node in self._graph.node):
            self._model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        helper.set_model_props(self._model, metadata)
        return self._model

    def in_place_of(self, model: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
        """These nodes between another model's inputs and outputs, with its constants that they read."""
        read = {name for node in self._graph.node for name in node.input}
        own = self._constants
        self._graph.input.extend(model.graph.input)
        self._graph.output.extend(model.graph.output)
        self._graph.initializer.extend(
            tensor for tensor in model.graph.initializer if tensor.name in read - own
        )
        self._model.ir_version = model.ir_version
        self._model.opset_import.extend(model.opset_import)
        if MICROSOFT not in {opset.domain for opset in model.opset_import}:
            self._model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        self._model.functions.extend(model.functions)
        helper.set_model_props(self._model, {p.key: p.value for p in model.metadata_props} | metadata)
        return self._model

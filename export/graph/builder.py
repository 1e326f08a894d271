"""A thin layer over ``onnx.helper``: unique names, shared constants, one model at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
# ONNX Runtime 1.19 (Triton 24.10) still reads this one.
IR_VERSION = 8
MICROSOFT = "com.microsoft"


class GraphBuilder:
    """Collects nodes and constants in order; every method returns the name of what it made."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self._name = name
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """An initializer; asking again for a name that exists returns it."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        self._count += 1
        name = f"{self._prefix}{kind}_{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, domain=domain, **attributes))
        return name

    def keep(self, node: onnx.NodeProto) -> None:
        """A node of another graph, as it is."""
        self._nodes.append(node)

    def rename_last(self, name: str) -> None:
        """Give the last node's only output its public name."""
        self._nodes[-1].output[0] = name

    def replace_nodes_of(self, model: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
        """A copy of a model with these nodes instead of its own, without constants that nobody reads."""
        wanted = {name for node in self._nodes for name in node.input}
        constants = {tensor.name: tensor for tensor in model.graph.initializer} | self._constants
        copy = _shell(model)
        copy.graph.node.extend(self._nodes)
        copy.graph.initializer.extend(tensor for name, tensor in constants.items() if name in wanted)
        if MICROSOFT not in {opset.domain for opset in copy.opset_import}:
            copy.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        helper.set_model_props(copy, {p.key: p.value for p in model.metadata_props} | metadata)
        return copy

    def model(self, labels: int, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model: input_ids, attention_mask INT64 [B, S] → logits FP32 [B, labels]."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])]
        graph = helper.make_graph(self._nodes, self._name, inputs, outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tritonflare"
        )
        helper.set_model_props(model, metadata)
        return model


def _shell(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inputs, outputs, opsets and metadata alone."""
    graph = helper.make_graph([], model.graph.name, model.graph.input, model.graph.output)
    return helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )

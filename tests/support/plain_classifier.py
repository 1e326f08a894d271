"""A tiny plain-operator classifier, and kits made of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from export.tensorrt.kit import KitModel, PlanCandidate, Samples, write_kit

# modelopt leaves products narrower than 16 alone.
VOCABULARY, HIDDEN, WIDE, LABELS = 40, 32, 64, 2
FALLBACK = 'name: "my-model"\n# second step: onnxruntime\n'


def plain_model(seed: int = 0, *, half: bool = False, flipped: bool = False) -> onnx.ModelProto:
    """Embeddings, one feed-forward block with a residual sum, mean of the real tokens, a head."""
    rng = np.random.default_rng(seed)
    kind = np.float16 if half else np.float32
    cast = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    words = rng.normal(0, 1, (VOCABULARY, HIDDEN))
    # Like a real model's: one channel dwarfs the others.
    words[:, 3] *= 30
    head = rng.normal(0, 1, (HIDDEN, LABELS)) * (-1 if flipped else 1)
    constants = {
        "words": words.astype(kind),
        "layer0_expand": rng.normal(0, 0.5, (HIDDEN, WIDE)).astype(kind),
        "layer0_contract": rng.normal(0, 0.5, (WIDE, HIDDEN)).astype(kind),
        "gamma": np.ones(HIDDEN, kind),
        "beta": np.zeros(HIDDEN, kind),
        "head": head.astype(kind),
        "last": np.array([-1]),
        "tokens": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["x"], "embed"),
        helper.make_node("MatMul", ["x", "layer0_expand"], ["u"], "expand"),
        helper.make_node("Relu", ["u"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "layer0_contract"], ["d"], "contract"),
        helper.make_node("Add", ["x", "d"], ["s"], "residual"),
        helper.make_node("LayerNormalization", ["s", "gamma", "beta"], ["n"], "norm", axis=-1),
        helper.make_node("Cast", ["attention_mask"], ["m"], "mask", to=cast),
        helper.make_node("Unsqueeze", ["m", "last"], ["column"], "column"),
        helper.make_node("Mul", ["n", "column"], ["real"], "real"),
        helper.make_node("ReduceSum", ["real", "tokens"], ["pooled"], "pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["h"], "head"),
        helper.make_node("Cast", ["h"], ["logits"], "out", to=TensorProto.FLOAT),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LABELS])]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "plain", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def texts(count: int = 300, seed: int = 1, longest: int = 40) -> list[list[int]]:
    """Token ids of sentences of 1 to ``longest`` tokens."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCABULARY, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


def answers(model: onnx.ModelProto, rows: list[list[int]]) -> npt.NDArray[np.float32]:
    """Logits [N, labels], every sentence alone."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [
        session.run(
            ["logits"], {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)}
        )
        for row in rows
    ]
    return np.concatenate([logits for (logits,) in found])


@dataclass(frozen=True)
class Kits:
    """Where a kit and its repository are."""

    kits: Path
    repository: Path
    cache: Path

    @property
    def folder(self) -> Path:
        """The kit itself."""
        return self.kits / "my-model" / "tensorrt"

    @property
    def ensemble(self) -> str:
        """The served ensemble's configuration."""
        return (self.repository / "my-model" / "config.pbtxt").read_text()

    def plans(self) -> list[str]:
        """The plan encoders in the repository."""
        return sorted(file.parent.parent.name for file in self.repository.glob("*/*/model.plan"))


def make_kits(root: Path, *, fp16: onnx.ModelProto, int8: onnx.ModelProto | None = None) -> Kits:
    """A repository that serves ONNX Runtime, and a kit with one or two candidates for it."""
    made = Kits(root / "artefacts", root / "models" / "repository", root / "cache")
    made.folder.parent.mkdir(parents=True)
    (made.repository / "my-model" / "1").mkdir(parents=True)
    (made.repository / "my-model" / "config.pbtxt").write_text(FALLBACK)
    (made.repository / "my-model_encoder_fp16" / "1").mkdir(parents=True)
    (made.repository / "my-model_encoder_fp16" / "config.pbtxt").write_text("backend: onnxruntime\n")
    write_my_kit(made, fp16=fp16, int8=int8)
    return made


def write_configs(encoder: str, folder: Path) -> None:
    """What the repository's writer gives for a plan."""
    (folder / "encoder.config.pbtxt").write_text(f'name: "{encoder}"\nplatform: "tensorrt_plan"\n')
    (folder / "ensemble.config.pbtxt").write_text(f'name: "my-model"\n# to {encoder}\n')
    (folder / "warmup").mkdir()
    (folder / "warmup" / "ones_16.bin").write_bytes(b"\1" * 128)


def write_my_kit(made: Kits, *, fp16: onnx.ModelProto, int8: onnx.ModelProto | None = None) -> None:
    """Export again: the same model, other graphs."""
    candidates = []
    for precision, graph in (("fp16", fp16), ("int8", int8)):
        if graph is None:
            continue
        file = made.kits / f"{precision}.onnx"
        file.unlink(missing_ok=True)  # the kit's file is a hard link to it
        onnx.save(graph, file)
        encoder = f"my-model_encoder_tensorrt_{precision}"
        candidates.append(PlanCandidate(precision, file, encoder, partial(write_configs, encoder)))
    reference = plain_model()
    # Two lengths, one batch of each: every batch is a start of the stand-in.
    rows = texts(120, longest=32)
    logits = answers(reference, rows)
    model = KitModel(
        name="@local/my-model",
        ensemble="my-model",
        problem_type="single_label_classification",
        max_tokens=32,
        fallback_config=FALLBACK,
    )
    write_kit(made.folder, model, candidates, Samples(rows, logits, [[int(i)] for i in logits.argmax(1)]))

"""The configurations that tests/golden/configs keeps, one file for each kind.

Run ``python -m tests.export.golden_configs`` to write them anew after a change that is meant,
and read the difference before you commit it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.repository.configs import (
    as_text,
    encoder_config,
    ensemble_config,
    joined_config,
    tokenizer_config,
)
from export.spec import ServedModel

FOLDER = Path(__file__).parents[1] / "golden" / "configs"
CPU = ServedModel(
    name="@cf/acme/mood", labels=("NEGATIVE", "NEUTRAL", "POSITIVE"), max_tokens=100, precision="int8",
    target="cpu", problem_type="single_label_classification", checkpoint="mood", description='Says "how".',
    created_at="2026-01-01 00:00:00.000", weights_sha256="0" * 64, tokenizer_sha256="1" * 64,
    model_sha256="2" * 64, version=3,
)  # fmt: skip
ONNXRUNTIME = replace(CPU, target="onnxruntime", instances=2, precision="fp16", pad_id=1)
CUDA = replace(CPU, target="cuda", precision="fp16", group_texts=32, group_tokens=4096)
TENSORRT = replace(ONNXRUNTIME, target="tensorrt", instances=1)
RERANKER = replace(
    CPU, name="@cf/acme/order", labels=("LABEL_0",), problem_type="multi_label_classification", task="rerank"
)
TYPED = replace(RERANKER, token_types=True)
JOINED = replace(CPU, layout="joined")
JOINED_RERANKER = replace(TYPED, layout="joined")
TYPED_TENSORRT = replace(TYPED, target="tensorrt", precision="fp16")


def configs() -> dict[str, pb.ModelConfig]:
    """Encoders by target, the steps that differ between a CPU and a GPU, of rerankers, and joined ones."""
    return {
        "cpu": encoder_config(CPU),
        "cuda": encoder_config(CUDA),
        "onnxruntime": encoder_config(ONNXRUNTIME),
        "tensorrt": encoder_config(TENSORRT),
        "tokenizer": tokenizer_config(CPU),
        "tokenizer_padded": tokenizer_config(TENSORRT),
        "ensemble": ensemble_config(CPU),
        "ensemble_cuda": ensemble_config(CUDA),
        "ensemble_tensorrt": ensemble_config(TENSORRT),
        "ensemble_rerank": ensemble_config(RERANKER),
        "ensemble_rerank_types": ensemble_config(TYPED),
        "tokenizer_rerank": tokenizer_config(RERANKER),
        "tokenizer_rerank_types": tokenizer_config(TYPED),
        "tokenizer_rerank_types_padded": tokenizer_config(TYPED_TENSORRT),
        "cpu_rerank_types": encoder_config(TYPED),
        "tensorrt_rerank_types": encoder_config(TYPED_TENSORRT),
        "joined": joined_config(JOINED),
        "joined_rerank": joined_config(JOINED_RERANKER),
        "ensemble_joined": ensemble_config(JOINED),
    }


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, config in configs().items():
        (FOLDER / f"{name}.pbtxt").write_text(as_text(config), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What can be exported to what, and how far it was tried; docs/compatibility.md is made from it.

Every cell has a test (tests/export/test_compatibility.py; for torch tests/parity) that does what
the cell says: exports and runs it, builds and checks it, or is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from export.plan import PRECISIONS
from export.spec import TARGETS

TESTED = "tested on CPU"
BUILT = "built and graph-checked, not run on a GPU"
UNSUPPORTED = "not supported"

WRITTEN = {"distilbert": "DistilBERT", "bert": "BERT", "roberta": "RoBERTa", "xlm-roberta": "XLM-RoBERTa"}
TORCH = "torch"
FAMILIES = {**WRITTEN, TORCH: "anything else (`torch.onnx.export`)"}


def status(family: str, precision: str, target: str) -> str:
    """How far a family of `FAMILIES` was taken in a precision to a target."""
    if target == "cpu":
        return TESTED
    if target == "onnxruntime":
        return UNSUPPORTED if precision == "int8" else BUILT
    if precision == "fp32" or family == TORCH:
        return UNSUPPORTED
    return BUILT


def cells() -> Iterator[tuple[str, str, str]]:
    """Every family, precision and target."""
    return ((f, p, t) for f in FAMILIES for p in PRECISIONS for t in TARGETS)


def as_markdown() -> str:
    """The page ``docs/compatibility.md``."""
    head = [f"{target} {precision}" for target in TARGETS for precision in PRECISIONS]
    marks = {TESTED: "●", BUILT: "○", UNSUPPORTED: "–"}
    rows = [
        [name, *(marks[status(family, p, t)] for t in TARGETS for p in PRECISIONS)]
        for family, name in FAMILIES.items()
    ]
    lines = [["family", *head], ["---"] * (len(head) + 1), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    legend = "; ".join(f"{mark} {meaning}" for meaning, mark in marks.items())
    return f"""# What can be exported

Made by `make settings` from `export/compatibility.py`; a test stands behind every cell.

{table}

{legend}.

- *cpu*: ONNX Runtime in Triton's python backend. FP16 runs there, but gains no speed: it is for GPUs.
- *onnxruntime*: Triton's ONNX Runtime backend on a GPU. INT8 is left out: its operators would run on the CPU.
- *tensorrt*: FP16, and INT8 as QDQ through `nvidia-modelopt` (extra `tensorrt`; its test is skipped without
  it). The plan itself is built where it is served and was never built here: [TensorRT](tensorrt.md).
- *anything else* needs the extra `torch`. `make parity` exports ELECTRA, MPNet, ModernBERT and I-BERT, and
  reads LiLT and LUKE. torch cannot export Longformer and XLNet, and the refusal says why.
- Two or more labels, single-label (softmax) or multi-label (sigmoid); regression heads are refused.
"""

"""What can be exported to what, and how far it was tried; docs/compatibility.md is made from it.

Every cell has a test (tests/export/test_compatibility.py; for torch tests/parity) that does what
the cell claims: the export runs and is checked, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from export.checkpoint.tokenizer_classes import CLASSES
from export.checkpoint.tokenizer_options import APPLIED, CLASS_SPECIFIC, REFUSED, WITHOUT_EFFECT
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
    if target in ("cuda", "onnxruntime"):
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

Made by `make settings` from `export/compatibility.py`; a test exports every cell. Nothing ran on a GPU.

{table}

{legend}.

- *cpu*: ONNX Runtime in Triton's python backend. FP16 gains no speed there.
- *cuda*: ONNX Runtime's CUDA provider in Triton's python backend. Operators of INT8 would run on the CPU.
  Tests run its program with the CPU's provider.
- *onnxruntime*: Triton's ONNX Runtime backend on a GPU. Operators of INT8 would run on the CPU.
- *tensorrt*: FP16, and INT8 as QDQ through `nvidia-modelopt` (extra `tensorrt`). The plan is built where it
  is served: [TensorRT](tensorrt.md).
- *anything else* needs the extra `torch`. `make parity` exports ELECTRA, MPNet, ModernBERT and I-BERT, as
  rerankers ELECTRA and DeBERTa-v2, and reads LiLT and LUKE. torch cannot export Longformer and XLNet; the
  refusal says why.
- Two or more labels, single-label (softmax) or multi-label (sigmoid), and one label: [a
  reranker](export.md#rerankers) of pairs of texts. Regression heads with more labels are refused.

## Tokenizer options

`tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` change what `tokenizer.json` does.
The published `tokenizer.json` gives the tokens of transformers 5; tests compare both for every class. Where
no option changes anything, it is the checkpoint's file, byte for byte.

{_tokenizer_options()}

- Supported classes, each also with `Fast`: {", ".join(f"`{name}`" for name in CLASSES)}.
  `PreTrainedTokenizerFast` takes `tokenizer.json` as it is; the others keep its vocabulary and build the
  rest. `transformers` itself reads any other class (extra `convert`).
- A class that needs another kind of model than `tokenizer.json` holds is refused. So is a named token for
  which the model has no row.
"""


def _tokenizer_options() -> str:
    def takers(option: str) -> str:
        names = [name for name, known in CLASSES.items() if option in known.options and known.model]
        return "applied: " + ", ".join(name.removesuffix("Tokenizer") for name in names)

    def joined(options: tuple[str, ...]) -> str:
        return ", ".join(f"`{option}`" for option in options)

    by_takers: dict[str, tuple[str, ...]] = {}
    for option in CLASS_SPECIFIC:
        by_takers[takers(option)] = (*by_takers.get(takers(option), ()), option)
    named = "special tokens; new ones are added, and those that frame a text frame it"
    rows = [
        ["option", "treatment", "meaning or reason"],
        ["---"] * 3,
        *(
            [joined(options), applied, "no effect for other classes"]
            for applied, options in by_takers.items()
        ),
        *([f"`{option}`", "applied", meaning] for option, meaning in APPLIED.items()),
        ["`bos_token` … `mask_token`, any `…_token`", "applied", named],
        *([joined(options), "no effect", why] for why, options in WITHOUT_EFFECT.items()),
        *([f"`{option}`", "refused", why] for option, why in REFUSED.items()),
        ["`auto_map` for `AutoTokenizer`", "refused", "names code of the checkpoint's own"],
        ["anything else, or a value of another type", "refused", "remove what no tokenizer reads"],
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)

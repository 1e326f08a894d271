"""What an export is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from export.errors import ExportError
from export.evaluation.gate import DEFAULT_LIMITS, GateLimits
from export.evaluation.settings import TimingSettings
from export.repository.versions import KEEP
from export.spec import JOINED, LAYOUTS, STEPS, TARGETS, ensemble_name

PRECISIONS = ("fp32", "fp16", "int8")
DEFAULT_PRECISION = {"cpu": "int8", "cuda": "fp16", "onnxruntime": "fp16", "tensorrt": "fp16"}
SCHEMES = ("token", "static-minmax", "static-percentile", "static-entropy", "static-smoothed", "blocks")
AUTO = "auto"
INT8_CHOICES = (*SCHEMES, AUTO)


@dataclass(frozen=True)
class ExportPlan:
    """One export.

    Attributes:
        source: a Hugging Face folder or a hub id.
        repository: the folder that Triton reads.
        artefacts: where files of all precisions and the report are kept, a folder a model.
        name: public name; None takes it from the checkpoint's ``tritonflare.json``.
        revision: branch, tag or commit of a hub id.
        target: one of `export.spec.TARGETS`.
        precision: which one is published; None is the target's usual one.
        int8: one of `INT8_CHOICES`; ``auto`` measures all and takes the fastest that passes.
        examples: labelled texts; None takes those that lie in the checkpoint's folder, or our own.
        limits: of the gate, by precision.
        timing: how time is taken; None takes none.
        all_precisions: build and report FP32, FP16 and INT8, not only what is published.
        instances: copies of the encoder that run at once; None is the target's usual number.
        aliases: other public names, to which the gateway answers too.
        layout: one of `export.spec.LAYOUTS`; ``joined`` is for the target ``cpu``.
        portable: INT8 weights use half their range even if this CPU has VNNI, for CPUs without.
        group_texts: most texts that the target ``cuda`` computes together; None is the usual number.
        group_tokens: most tokens that it computes together, padding included; None is the usual number.
        keep: how many versions that were published before are kept for a rollback.
        labels: names in the order of the logits, instead of those of the checkpoint.
        text_column: of ``examples``.
        label_column: of ``examples``; None takes ``label`` where it is there.
        min_accuracy: least share of labelled texts that are right, 0…1; None sets no limit.
        min_f1: least mean F1 of the labels, 0…1; None sets no limit.
        allow_poor: publish a model that shows the signs of `export.evaluation.doubts`, with a warning.
    """

    source: str | Path
    repository: Path
    artefacts: Path
    name: str | None = None
    revision: str | None = None
    target: str = "cpu"
    precision: str | None = None
    int8: str = "token"
    examples: Path | None = None
    limits: Mapping[str, GateLimits] = field(default_factory=lambda: DEFAULT_LIMITS)
    timing: TimingSettings | None = field(default_factory=TimingSettings)
    all_precisions: bool = True
    instances: int | None = None
    aliases: tuple[str, ...] = ()
    portable: bool = False
    layout: str = STEPS
    group_texts: int | None = None
    group_tokens: int | None = None
    keep: int = KEEP
    labels: tuple[str, ...] = ()
    text_column: str = "text"
    label_column: str | None = None
    min_accuracy: float | None = None
    min_f1: float | None = None
    allow_poor: bool = False

    def __post_init__(self) -> None:
        for alias in self.aliases:
            ensemble_name(alias)  # the same rules as for names
        if len({self.name, *self.aliases}) <= len(self.aliases):
            raise ExportError("an --alias must differ from the model's name and from every other alias.")
        repository, artefacts = self.repository.resolve(), self.artefacts.resolve()
        if repository.is_relative_to(artefacts) or artefacts.is_relative_to(repository):
            raise ExportError(
                "--repository and --artefacts must not lie in one another; Triton reads the former."
            )
        if self.int8 == AUTO and self.timing is None:
            raise ExportError("--int8 auto chooses by speed; it cannot do without timing.")
        if self.examples is None and (self.text_column != "text" or self.label_column):
            raise ExportError("--text-column and --label-column are for the file of --eval; give both.")
        self._check_target()

    def _check_target(self) -> None:
        if self.target not in TARGETS:
            raise ExportError(f"{self.target!r} is no target; known are {', '.join(TARGETS)}.")
        if self.layout not in LAYOUTS:
            raise ExportError(f"{self.layout!r} is no layout; known are {', '.join(LAYOUTS)}.")
        if self.layout == JOINED and self.target != "cpu":
            raise ExportError(
                f"--layout joined runs the encoder on the CPU, and --target {self.target} on a GPU; "
                "leave --layout out."
            )
        if (self.group_texts or self.group_tokens) and self.target != "cuda":
            raise ExportError("--group-texts and --group-tokens are for --target cuda; leave them out.")
        if self.target in ("cuda", "onnxruntime") and self.served == "int8":
            raise ExportError(
                f"INT8 for --target {self.target} would run on the CPU; choose fp16, or another target."
            )
        if self.target == "tensorrt" and self.served == "fp32":
            raise ExportError(
                "TensorRT plans are built as fp16, or int8 with fp16 beside it; choose one of them."
            )

    @property
    def served(self) -> str:
        """The precision that is asked for."""
        return self.precision or DEFAULT_PRECISION[self.target]

    @property
    def published(self) -> str:
        """The precision of the published ONNX file; beside a TensorRT plan it is the FP16 fallback."""
        return "fp16" if self.target == "tensorrt" else self.served

    @property
    def precisions(self) -> tuple[str, ...]:
        """What is built: FP32 always, because the others are compared with it; INT8 is for CPUs.

        A TensorRT plan's INT8 is a graph of its own (export.tensorrt).
        """
        if self.target != "cpu":
            return ("fp32", "fp16")
        if self.all_precisions:
            return PRECISIONS
        return tuple(p for p in PRECISIONS if p in ("fp32", self.served))

    @property
    def schemes(self) -> tuple[str, ...]:
        """INT8 schemes that are tried."""
        return SCHEMES if self.int8 == AUTO else (self.int8,)

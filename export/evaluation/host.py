"""The CPU that figures were taken on, and whether it multiplies 8-bit integers well."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# Flags that decide which INT8 kernels ONNX Runtime takes.
INT8_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """``vnni`` is None where it means nothing: not an x86 processor, or nothing known about it."""

    cpu: str
    flags: tuple[str, ...]
    vnni: bool | None


@dataclass(frozen=True)
class Host(Processor):
    """A processor with what runs on it here."""

    cores: int
    onnxruntime: str

    @property
    def warning(self) -> str | None:
        """One sentence if INT8 may be slow or inexact here."""
        if self.vnni is not False:
            return None
        return (
            f"{self.cpu} has no VNNI: INT8 products may saturate and gain little speed on it; "
            "judge INT8 on the kind of CPU that will serve, or serve FP32 there."
        )


def describe_host(cpuinfo: Path = CPUINFO) -> Host:
    """This machine, from Linux's description of its first core."""
    # Imported here: `describe_processor` must do without it.
    import onnxruntime  # noqa: PLC0415

    processor = describe_processor(cpuinfo)
    cores = len(os.sched_getaffinity(0))
    return Host(**vars(processor), cores=cores, onnxruntime=onnxruntime.__version__)


def describe_processor(cpuinfo: Path = CPUINFO) -> Processor:
    """The first core."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return Processor(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        flags=tuple(flag for flag in INT8_FLAGS if flag in flags),
        vnni=bool({"avx512_vnni", "avx_vnni"} & set(flags)) if "flags" in facts else None,
    )

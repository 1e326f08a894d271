"""The CPU that figures were taken on, and whether it multiplies 8-bit integers well."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

# Flags that decide which INT8 kernels ONNX Runtime takes.
INT8_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Host:
    """``vnni`` is None where it means nothing: not an x86 processor, or nothing known about it."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    vnni: bool | None
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
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    x86 = "flags" in facts
    return Host(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        flags=tuple(flag for flag in INT8_FLAGS if flag in flags),
        vnni=bool({"avx512_vnni", "avx_vnni"} & set(flags)) if x86 else None,
        onnxruntime=ort.__version__,
    )

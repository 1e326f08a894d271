"""The machine, its GPUs and the versions."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib.metadata import distributions
from typing import Any

from embedded import gpu, host
from embedded.errors import EmbeddedError
from loadtest.bench.gpu import open_gpus
from tools.gpu_check.job import CheckFailed, Job
from tritonflare.paths import runnable

AUTO = "auto"
_PACKAGES = re.compile(r"tritonflare|nvidia-.*|onnxruntime(-gpu)?|tokenizers|grpcio|numpy|tensorrt.*")


def doctor(job: Job) -> str:
    """Hold the machine against what the embedded Triton, and on a GPU its provider, need."""
    findings = host.findings() + (gpu.findings() if job.settings.device == "cuda" else [])
    for finding in findings:
        # Not where libraries lie: a report shows no paths.
        found = "found" if "/" in finding.found and finding.ok else finding.found
        job.row(what=finding.name, found=found, ok=finding.ok)
    job.figures(machine=describe())
    bad = [finding for finding in findings if not finding.ok]
    if bad:
        raise CheckFailed(runnable(f"{bad[0].name}: {bad[0].found}. {bad[0].remedy}"))
    return f"All {len(findings)} requirements are met."


def choose_device(wanted: str) -> str:
    """``cuda`` or ``cpu``; ``auto`` is cuda where NVML finds a GPU, and cpu where there is no driver.

    Raises:
        CheckFailed: there is a driver, and no GPU of it can be used; nothing falls back to the CPU silently.
    """
    if wanted != AUTO:
        return wanted
    if describe()["gpus"]:
        return "cuda"
    try:
        gpu.require_driver()
    except EmbeddedError:
        return "cpu"
    bad = next((finding for finding in gpu.findings() if not finding.ok), None)
    why = "no GPU can be read" if bad is None else f"{bad.name}: {bad.found}. {bad.remedy}".rstrip(".")
    raise CheckFailed(runnable(f"There is an NVIDIA driver, but {why}. Or try the script with --device cpu."))


def describe() -> dict[str, Any]:
    """Processor, cores, GPUs, driver and versions; neither names nor paths.

    ``gpus`` is empty where NVML finds none, or is not installed.
    """
    from export.evaluation.host import describe_host  # noqa: PLC0415 (imports ONNX Runtime)

    about = describe_host()
    with open_gpus() as gpus:
        graphics = {"devices": []} if gpus is None else gpus.describe()
    return {
        "cpu": about.cpu,
        "cores": about.cores,
        "python": platform.python_version(),
        "onnxruntime": about.onnxruntime,
        "packages": dict(sorted(_packages())),
        "driver": graphics.get("driver"),
        "gpus": graphics["devices"],
    }


def _packages() -> Iterator[tuple[str, str]]:
    for each in distributions():
        if _PACKAGES.fullmatch(each.metadata["Name"].lower()):
            yield each.metadata["Name"], each.version

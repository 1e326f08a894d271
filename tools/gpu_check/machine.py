"""The machine, its GPUs and the versions; and what the GPUs do while something is measured."""

from __future__ import annotations

import importlib
import platform
import re
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import distributions
from typing import Any

from embedded import gpu, host
from loadtest.bench.figures import Sample
from tools.gpu_check.job import CheckFailed, Job
from tritonflare.paths import runnable

_PACKAGES = re.compile(r"tritonflare|nvidia-.*|onnxruntime(-gpu)?|tokenizers|grpcio|numpy|tensorrt.*")
_EVERY_S = 0.1


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


def describe() -> dict[str, Any]:
    """Processor, cores, GPUs, driver and versions; neither names nor paths.

    ``gpus`` is empty where NVML finds none, or is not installed.
    """
    from export.evaluation.host import describe_host  # noqa: PLC0415 (imports ONNX Runtime)

    about = describe_host()
    return {
        "cpu": about.cpu,
        "cores": about.cores,
        "python": platform.python_version(),
        "onnxruntime": about.onnxruntime,
        "packages": dict(sorted(_packages())),
        **_gpus(),
    }


def _packages() -> Iterator[tuple[str, str]]:
    for each in distributions():
        if _PACKAGES.fullmatch(each.metadata["Name"].lower()):
            yield each.metadata["Name"], each.version


def _gpus() -> dict[str, Any]:
    with _nvml() as nvml:
        if nvml is None:
            return {"gpus": []}
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return {
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            "gpus": [
                {
                    "name": _text(nvml.nvmlDeviceGetName(handle)),
                    "memory_mb": round(nvml.nvmlDeviceGetMemoryInfo(handle).total / 1e6),
                }
                for handle in _handles(nvml)
            ],
        }


def _text(value: str | bytes) -> str:
    """What older bindings give as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _handles(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVML's bindings, initialised; None without the package, a driver or a device."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:
        # The bindings raise classes that are made at run time, and a broken driver raises OSError.
        yield None
        return
    try:
        yield nvml if nvml.nvmlDeviceGetCount() else None
    finally:
        nvml.nvmlShutdown()


class GpuMeter:
    """Adds to a sample what the GPUs did while it was taken; all GPUs of the machine together.

    ``gpu_percent`` is the mean utilisation, ``gpu_mb`` the most memory in use, ``watts`` the mean power,
    ``per_watt`` texts a second and watt. What a GPU cannot tell is missing.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handles = [] if nvml is None else _handles(nvml)

    def around(self, measure: Callable[[], Sample]) -> Sample:
        """The sample of ``measure`` and the GPUs' figures."""
        if not self._handles:
            return measure()
        found: dict[str, list[float]] = {"gpu_percent": [], "gpu_mb": [], "watts": []}
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(found, ended))
        thread.start()
        try:
            sample = dict(measure())
        finally:
            ended.set()
            thread.join()
        for name, values in found.items():
            if values:
                sample[name] = max(values) if name == "gpu_mb" else statistics.mean(values)
        if sample.get("watts"):
            sample["per_watt"] = sample["rate"] / sample["watts"]
        return sample

    def _watch(self, found: dict[str, list[float]], ended: threading.Event) -> None:
        nvml = self._nvml
        reads: dict[str, Callable[[], float]] = {
            "gpu_percent": lambda: statistics.mean(
                nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in self._handles
            ),
            "gpu_mb": lambda: sum(nvml.nvmlDeviceGetMemoryInfo(each).used for each in self._handles) / 1e6,
            "watts": lambda: sum(nvml.nvmlDeviceGetPowerUsage(each) for each in self._handles) / 1e3,
        }
        while not ended.wait(_EVERY_S):
            for name, read in reads.items():
                # A part of a GPU (MIG) tells neither power nor utilisation.
                with suppress(nvml.NVMLError):
                    found[name].append(read())


@contextmanager
def gpu_meter() -> Iterator[GpuMeter]:
    """A meter of this machine's GPUs; without any, it adds nothing."""
    with _nvml() as nvml:
        yield GpuMeter(nvml)

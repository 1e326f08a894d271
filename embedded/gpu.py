"""Checks whether ONNX Runtime can compute on an NVIDIA GPU of this host; each failed check has a remedy.

The driver is asked through NVML, which comes with it; ``nvidia-ml-py`` are its Python bindings.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from embedded import wheel
from embedded.errors import EmbeddedError
from embedded.host import HostFinding, require_all

INSTALL = "run `make serve-gpu` (or install requirements/serve-gpu.txt into an environment of its own)"
FIRST_DRIVERS = {12: 525, 13: 580}
"""The first driver for Linux that runs what was built for a major version of CUDA:
https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"""
_CPU = "or take --device cpu, to try it slowly without a GPU"
_NVML = "libnvidia-ml.so.1"
_HIDDEN = ("", "-1", "NoDevFiles")
_LOAD_TIMEOUT_S = 300
"""2 GB of libraries from a network's file system that has them in no cache."""
# As the python models do before they make a session; a session would not say which library is missing.
_LOAD_PROVIDER = """
import ctypes, io, json, os, sys
from contextlib import redirect_stdout
import onnxruntime
problem = ""
try:
    with redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls(directory="")
    folder = os.path.join(os.path.dirname(onnxruntime.__file__), "capi")
    ctypes.CDLL(os.path.join(folder, "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(os.path.join(folder, "libonnxruntime_providers_cuda.so"))
except (AttributeError, OSError) as error:
    problem = str(error)
print(json.dumps({"cuda": getattr(onnxruntime, "cuda_version", ""), "problem": problem}))
"""
# As the python models and Triton write it, with the traceback behind it.
_DEVICE_ERROR = re.compile(r"(?:Device|NoCuda)Error: (.+?\.)(?:\\n| \||$)", re.MULTILINE)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|too little free memory|_ALLOC(?:ATION)?_FAILED|CUBLAS_STATUS_NOT_INITIALIZED"
    r"|Failed to allocate memory",
    re.IGNORECASE,
)
_MIB = 2**20


@dataclass(frozen=True)
class Device:
    """One GPU; memory in bytes, 0 in all if the driver does not tell it.

    ``problem`` says why the driver does not open it; empty if it does.
    """

    name: str
    free: int = 0
    total: int = 0
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.name}, cannot be used: the driver reports {self.problem}"
        if not self.total:
            return f"{self.name}, its free memory is not known"
        return f"{self.name}, {self.free // _MIB} MiB of {self.total // _MIB} MiB free"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: its version, the newest CUDA that it knows, and the GPUs that it lists."""

    version: str
    cuda: tuple[int, int]
    devices: tuple[Device, ...]


class _Unusable(Exception):
    """A check that failed."""

    def __init__(self, name: str, found: str, remedy: str) -> None:
        super().__init__(name)
        self.finding = HostFinding(name, found, remedy)


def findings() -> list[HostFinding]:
    """Run all checks, in the order in which their remedies apply."""
    packages, cuda = _packages()
    try:
        driver = read_driver()
    except _Unusable as problem:
        return [problem.finding, *packages]
    devices = [HostFinding(f"GPU {number}", str(device)) for number, device in enumerate(driver.devices)]
    return [_recent(driver, cuda), *devices, *packages]


def require() -> None:
    """Raise EmbeddedError with the first remedy, if there is one.

    A GPU that cannot be read is no reason as long as there is another one.
    """
    require_all(findings())


def summary() -> HostFinding:
    """Return one finding that is always good, for a host on which nothing needs a GPU."""
    try:
        return HostFinding("GPU", "; ".join(map(str, read_driver().devices)))
    except _Unusable as problem:
        reason = f"{problem.finding.name}: {problem.finding.found}"
        return HostFinding("GPU", f"none ({reason}); models of target cuda cannot run here")


def require_driver() -> None:
    """Raise EmbeddedError unless there is a driver, which is looked for without any package."""
    if not _has_nvml():
        raise EmbeddedError(
            f"NVIDIA driver: not found. Install NVIDIA's driver, {FIRST_DRIVERS[12]} or newer; `make serve` "
            "needs no GPU."
        )


def explain_failed_start(log: str) -> str | None:
    """Return what the last lines of Triton's log say about the GPU, as a sentence; None if nothing.

    Args:
        log: the lines, of a Triton that ended while it loaded its models.
    """
    told = _DEVICE_ERROR.search(log)
    # What ended Triton, and not what was said before of a GPU that was left out.
    if not _OUT_OF_MEMORY.search(told[1] if told else log):
        return f"{told[1]} `tritonflare doctor` checks driver and libraries." if told else None
    try:
        free = "; ".join(map(str, read_driver().devices))
    except _Unusable:
        free = "its free memory cannot be read"
    return (
        f"The GPU has too little memory for the models ({free}, without them); end other programs on it "
        "(`nvidia-smi` lists them), serve fewer models or instances, or take --precision fp16 at the export."
    )


def read_driver() -> Driver:
    """Ask the driver for its version and its GPUs.

    Raises:
        _Unusable: there is no driver, no GPU, or no answer.
    """
    with _nvml() as nvml:
        try:
            cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
            devices = tuple(_device(nvml, number) for number in range(nvml.nvmlDeviceGetCount()))
            driver = Driver(
                _text(nvml.nvmlSystemGetDriverVersion()), (cuda // 1000, cuda % 1000 // 10), devices
            )
        except nvml.NVMLError as error:
            raise _Unusable(
                "GPU", f"the driver reports {error}", f"See what `nvidia-smi` says, {_CPU}."
            ) from error
    if not driver.devices:
        raise _Unusable(
            "GPU",
            f"the driver {driver.version} finds no device",
            f"See what `nvidia-smi -L` lists; a container needs its devices passed through; {_CPU}.",
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in _HIDDEN:
        raise _Unusable("GPU", "hidden by CUDA_VISIBLE_DEVICES", f"Unset that variable, {_CPU}.")
    if all(device.problem for device in driver.devices):
        problem = driver.devices[0].problem
        raise _Unusable("GPU", f"the driver reports {problem}", f"See what `nvidia-smi` says, {_CPU}.")
    return driver


def _device(nvml: Any, number: int) -> Device:
    """One GPU; it may be lost, or not this user's or job's to open."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        name = _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        return Device(f"number {number}", problem=str(error))
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError:  # such as a GPU in parts (MIG), to those who may not administer it
        return Device(name)
    return Device(name, int(memory.free), int(memory.total))


@contextmanager
def _nvml() -> Iterator[Any]:
    """The bindings of NVML, initialised.

    Raises:
        _Unusable: they are not installed, or NVML is not there or does not work.
    """
    name = "NVIDIA driver"
    try:
        import pynvml  # noqa: PLC0415 (only installed where a GPU is to be used)
    except ImportError:
        # Whoever has no driver is not helped by installing a package.
        if not _has_nvml():
            raise _Unusable(name, "not found", _no_driver()) from None
        raise _Unusable("nvidia-ml-py", "not installed", f"To install it, {INSTALL}.") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise _Unusable(name, "not found", _no_driver()) from None
    except pynvml.NVMLError_DriverNotLoaded:
        raise _Unusable(
            name,
            "its kernel module is not loaded",
            f"Run `sudo modprobe nvidia`, or restart the machine, {_CPU}.",
        ) from None
    except pynvml.NVMLError_LibRmVersionMismatch:
        raise _Unusable(
            name, "updated, while the old one still runs", f"Restart the machine, {_CPU}."
        ) from None
    except pynvml.NVMLError as error:
        raise _Unusable(name, f"does not work: {error}", f"See what `nvidia-smi` says, {_CPU}.") from None
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _has_nvml() -> bool:
    try:
        ctypes.CDLL(_NVML)
    except OSError:
        return False
    return True


def _no_driver() -> str:
    return f"Install NVIDIA's driver, {FIRST_DRIVERS[12]} or newer, {_CPU}."


def _packages() -> tuple[list[HostFinding], str]:
    """Check onnxruntime-gpu and its libraries; return the CUDA that it was built for as well."""
    found = []
    try:
        version = _runtime_version()
        found.append(HostFinding("onnxruntime-gpu", version))
        cuda = _cuda_of_provider()
    except _Unusable as problem:
        return [*found, problem.finding], ""
    versions = {"CUDA": _version_of("nvidia-cuda-runtime"), "cuDNN": _version_of("nvidia-cudnn")}
    libraries = ", ".join(f"{part} {version or 'of the system'}" for part, version in versions.items())
    runtime = HostFinding("onnxruntime-gpu", f"{version}, for CUDA {cuda}")
    return [runtime, HostFinding("CUDA libraries", libraries)], cuda


def _runtime_version() -> str:
    """The version of onnxruntime-gpu.

    Raises:
        _Unusable: it is not installed, or onnxruntime is installed as well.
    """
    name = "onnxruntime-gpu"
    version, plain = _version(name), _version("onnxruntime")
    if version is None:
        found = "not installed" if plain is None else f"not installed, only onnxruntime {plain} for CPUs"
        raise _Unusable(name, found, f"To install it, {INSTALL}.")
    if plain is not None:
        raise _Unusable(
            name,
            f"{version} beside onnxruntime {plain}, and each overwrites the other's files",
            f"Make a new environment: {INSTALL}.",
        )
    return version


@cache
def _cuda_of_provider() -> str:
    """The CUDA that onnxruntime-gpu was built for, once its provider has been loaded.

    Kept once it is known: loading takes seconds, and a Triton that is restarted must not wait for it.

    Raises:
        _Unusable: it cannot be loaded.
    """
    answer = _load_provider()
    if answer["problem"]:
        missing = re.match(r"lib[\w.+-]+\.so[\d.]*(?=:)", answer["problem"])
        found = f"{missing[0]} is missing" if missing else "the CUDA provider cannot be loaded"
        raise _Unusable("CUDA libraries", found, f"To install CUDA and cuDNN from PyPI, {INSTALL}.")
    return answer["cuda"]


def _load_provider() -> dict[str, str]:
    """Load the CUDA provider as Triton's stubs do, in a process of its own, and return what came of it.

    Raises:
        _Unusable: that process failed, or did not end.
    """
    name = "onnxruntime-gpu"
    try:
        environment = wheel.environment("cuda")
    except EmbeddedError:  # another finding says that the wheel is missing
        environment = dict(os.environ)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _LOAD_PROVIDER],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LOAD_TIMEOUT_S,
            check=True,
        )
        answer: dict[str, str] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise _Unusable(
            name,
            f"its libraries were not loaded within {_LOAD_TIMEOUT_S} s",
            f"Try again, or install it on a local disk, {_CPU}.",
        ) from error
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise _Unusable(
            name, f"cannot be loaded ({type(error).__name__})", f"To repair it, {INSTALL}."
        ) from error
    return answer


def _recent(driver: Driver, cuda: str) -> HostFinding:
    """Say whether a driver is recent enough for the CUDA that onnxruntime-gpu was built for."""
    found = f"{driver.version}, for CUDA up to {'.'.join(map(str, driver.cuda))}"
    major = int(cuda.partition(".")[0] or 0)
    if driver.cuda[0] >= major:
        return HostFinding("NVIDIA driver", found)
    first = FIRST_DRIVERS.get(major)
    needed = f"driver {first} or newer" if first else "a newer driver"
    found = f"{found}, but onnxruntime-gpu was built for CUDA {cuda}"
    return HostFinding("NVIDIA driver", found, f"Install {needed}, {_CPU}.")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version_of(wheels: str) -> str | None:
    """The version of the wheel for CUDA 12 or 13, whose names differ."""
    return next(filter(None, (_version(f"{wheels}{suffix}") for suffix in ("-cu12", "-cu13", ""))), None)


def _text(value: str | bytes) -> str:
    """Older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":  # `make serve-gpu` asks, in any Python, before it downloads anything
    try:
        require_driver()
    except EmbeddedError as problem:
        sys.exit(str(problem))

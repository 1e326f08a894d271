"""Checks whether the wheel's tritonserver can run on this host; each failed check has a remedy."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from embedded import wheel
from embedded.errors import EmbeddedError

GLIBC = (2, 35)
PYTHONS = ((3, 10), (3, 11), (3, 12))


@dataclass(frozen=True)
class HostFinding:
    """The result of a check; ``remedy`` is empty if it passed."""

    name: str
    found: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether the check passed."""
        return not self.remedy


def findings() -> list[HostFinding]:
    """Run all checks, in the order in which their remedies apply."""
    return [check() for check in _CHECKS]


def require() -> None:
    """Raise EmbeddedError with the first remedy, if there is one."""
    require_all(findings())


def require_all(checked: Iterable[HostFinding]) -> None:
    """Raise EmbeddedError for the first check that failed, if there is one."""
    for finding in checked:
        if not finding.ok:
            raise EmbeddedError(f"{finding.name}: {finding.found}. {finding.remedy}")


def _platform() -> HostFinding:
    found = f"{platform.system()} {platform.machine()}"
    good = found == "Linux x86_64"
    return HostFinding(
        "platform", found, "" if good else "The wheel is for Linux x86-64; use docker compose elsewhere."
    )


def _glibc() -> HostFinding:
    name, version = platform.libc_ver()
    try:
        number = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        number = ()
    good = name == "glibc" and number >= GLIBC
    remedy = "Triton needs glibc 2.35 or newer (Debian 12, Ubuntu 22.04 or later); or use docker compose."
    return HostFinding("C library", f"{name or 'unknown'} {version}".strip(), "" if good else remedy)


def _python() -> HostFinding:
    remedy = "The stubs exist for Python 3.10, 3.11 and 3.12; run `make clean serve PYTHON=python3.11`."
    return HostFinding("Python", platform.python_version(), "" if sys.version_info[:2] in PYTHONS else remedy)


def _wheel() -> HostFinding:
    try:
        version = importlib.metadata.version("nvidia-pytriton")
        binary = wheel.folder() / "bin" / "tritonserver"
    except (importlib.metadata.PackageNotFoundError, EmbeddedError):
        return HostFinding("nvidia-pytriton", "not installed", f"To install it, {wheel.INSTALL}.")
    if not os.access(binary, os.X_OK):
        return HostFinding(
            "nvidia-pytriton", f"{version} without a tritonserver", f"To repair it, {wheel.INSTALL}."
        )
    return HostFinding("nvidia-pytriton", version)


def _numpy() -> HostFinding:
    try:
        version = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        return HostFinding("numpy", "not installed", f"To install it, {wheel.INSTALL}.")
    good = int(version.split(".")[0]) < 2
    remedy = "Triton 2.51's python stubs garble strings under numpy 2; .venv/bin/pip install 'numpy<2'."
    return HostFinding("numpy", version, "" if good else remedy)


def _libpython() -> HostFinding:
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LIBPL")):
        if folder and (Path(folder) / name).exists():
            return HostFinding("libpython", f"{folder}/{name}")
    if ctypes.util.find_library(f"python{sys.version_info.major}.{sys.version_info.minor}"):
        return HostFinding("libpython", name)
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    remedy = f"Triton's stub links {name}: apt-get install {package}, or a Python built with --enable-shared."
    return HostFinding("libpython", "not found", remedy)


def _modules() -> HostFinding:
    missing = [name for name in ("onnxruntime", "tokenizers") if importlib.util.find_spec(name) is None]
    found = f"missing {', '.join(missing)}" if missing else "onnxruntime, tokenizers"
    return HostFinding("model libraries", found, f"To install them, {wheel.INSTALL}." if missing else "")


_CHECKS: tuple[Callable[[], HostFinding], ...] = (
    _platform,
    _glibc,
    _python,
    _wheel,
    _numpy,
    _libpython,
    _modules,
)

"""A stand-in for ``pynvml``, the Python bindings of NVIDIA's driver."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

MIB = 2**20


class Nvml(ModuleType):
    """``pynvml`` with one driver, and errors where a test wants them."""

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_DriverNotLoaded(NVMLError):
        pass

    class NVMLError_LibRmVersionMismatch(NVMLError):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.driver, self.cuda = "550.54.15", 12040
        self.devices = [("Tesla T4", 14000 * MIB, 15360 * MIB)]
        self.fails: dict[str, Exception] = {}
        self.lost: set[int] = set()
        """Numbers of devices that are there and cannot be opened."""
        self.open = 0

    def _may_fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    def nvmlInit(self) -> None:
        self._may_fail("init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.lost:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self.devices[handle][0].encode()

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        _, free, total = self.devices[handle]
        return SimpleNamespace(free=free, total=total)


def install(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """Have ``import pynvml`` find the stand-in, until the end of the test."""
    module = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module

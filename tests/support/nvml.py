"""A stand-in for ``pynvml``, the Python bindings of NVIDIA's driver, with devices that a test makes up."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

MIB = 2**20


@dataclass
class FakeDevice:
    """A GPU; None is what it does not support.

    ``counts_energy``: whether it has an energy counter, which then counts ``watts`` over real time.
    """

    name: str = "NVIDIA Pretend"
    busy_percent: int | None = 40
    memory_used: Sequence[int] = (1_000_000_000,)
    """Bytes, one after the other at each reading; the last stays."""
    memory_total: int = 16_000_000_000
    watts: float | None = 70.0
    limit_watts: float | None = 300.0
    counts_energy: bool = True
    pids: Sequence[int] = ()
    lost: bool = False
    readings: int = field(default=0, init=False)

    def memory(self) -> SimpleNamespace:
        used = self.memory_used[min(self.readings, len(self.memory_used) - 1)]
        self.readings += 1
        return SimpleNamespace(used=used, free=self.memory_total - used, total=self.memory_total)


class Nvml(ModuleType):
    """``pynvml`` with one driver.

    Attributes:
        devices: in the driver's order.
        driver: its version; without one, the module cannot be initialised.
        cuda: the newest version of CUDA that the driver knows; 12040 is 12.4.
        fails: errors to raise: ``init`` by ``nvmlInit``.
        open: how often it was initialised and not shut down.
    """

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_DriverNotLoaded(NVMLError):
        pass

    class NVMLError_LibRmVersionMismatch(NVMLError):
        pass

    def __init__(self, *devices: FakeDevice, driver: str | None = "580.1", cuda: int = 13000) -> None:
        super().__init__("pynvml")
        self.devices = list(devices)
        self.driver, self.cuda = driver, cuda
        self.fails: dict[str, Exception] = {}
        self.open = 0

    def nvmlInit(self) -> None:
        self._may_fail("init")
        self._told(self.driver)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str | None:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeDevice:
        if self.devices[index].lost:
            raise self.NVMLError("GPU is lost")
        return self.devices[index]

    def nvmlDeviceGetName(self, device: FakeDevice) -> str:
        return device.name

    def nvmlDeviceGetMemoryInfo(self, device: FakeDevice) -> SimpleNamespace:
        return device.memory()

    def nvmlDeviceGetUtilizationRates(self, device: FakeDevice) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._told(device.busy_percent), memory=1)

    def nvmlDeviceGetPowerUsage(self, device: FakeDevice) -> int:
        return int(1000 * self._told(device.watts))

    def nvmlDeviceGetEnforcedPowerLimit(self, device: FakeDevice) -> int:
        return int(1000 * self._told(device.limit_watts))

    def nvmlDeviceGetTotalEnergyConsumption(self, device: FakeDevice) -> int:
        watts = self._told(device.watts if device.counts_energy else None)
        return int(1000 * watts * time.perf_counter())

    def nvmlDeviceGetComputeRunningProcesses(self, device: FakeDevice) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in device.pids]

    def _may_fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    def _told(self, value: Any) -> Any:
        if value is None:
            raise self.NVMLError("Not Supported")
        return value


def install(monkeypatch: pytest.MonkeyPatch, *devices: FakeDevice, driver: str | None = "550.54.15") -> Nvml:
    """Have ``import pynvml`` find the stand-in, until the end of the test.

    Without ``devices`` there is one with 14,000 of its 15,360 MiB free; the driver knows CUDA 12.4.
    """
    module = Nvml(
        *(devices or (FakeDevice("Tesla T4", memory_used=(1360 * MIB,), memory_total=15360 * MIB),)),
        driver=driver,
        cuda=12040,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module

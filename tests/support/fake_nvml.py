"""``pynvml`` with devices whose figures a test chooses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What the real module raises, whatever it could not do."""


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
        return SimpleNamespace(used=used, total=self.memory_total)


def fake_nvml(*devices: FakeDevice, driver: str | None = "580.1") -> Any:
    """The module; without ``driver`` it cannot be initialised."""
    nvml: Any = ModuleType("pynvml")
    nvml.NVMLError = NVMLError
    nvml.open = 0

    def told(value: Any) -> Any:
        if value is None:
            raise NVMLError("Not Supported")
        return value

    def init() -> None:
        told(driver)
        nvml.open += 1

    def shut_down() -> None:
        nvml.open -= 1

    def handle(index: int) -> FakeDevice:
        if devices[index].lost:
            raise NVMLError("GPU is lost")
        return devices[index]

    nvml.nvmlInit, nvml.nvmlShutdown = init, shut_down
    nvml.nvmlSystemGetDriverVersion = lambda: driver
    nvml.nvmlDeviceGetCount = lambda: len(devices)
    nvml.nvmlDeviceGetHandleByIndex = handle
    nvml.nvmlDeviceGetName = lambda device: device.name
    nvml.nvmlDeviceGetMemoryInfo = FakeDevice.memory
    nvml.nvmlDeviceGetUtilizationRates = lambda device: SimpleNamespace(
        gpu=told(device.busy_percent), memory=1
    )
    nvml.nvmlDeviceGetPowerUsage = lambda device: round(1000 * told(device.watts))
    nvml.nvmlDeviceGetEnforcedPowerLimit = lambda device: round(1000 * told(device.limit_watts))
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda device: told(
        round(1000 * device.watts * time.perf_counter()) if device.counts_energy and device.watts else None
    )
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda device: [
        SimpleNamespace(pid=pid) for pid in device.pids
    ]
    return nvml

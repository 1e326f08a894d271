"""What GPUs did while something was measured, read from NVML in a thread of its own."""

from __future__ import annotations

import importlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from loadtest.bench.figures import Sample

EVERY_S = 0.1
LAG_S = 1.0
"""NVML's utilisation and power are averages over up to a second (nvmlUtilization_t, nvmlDeviceGetPowerUsage):
what is read earlier in a measurement is partly about the time before it."""


@dataclass(frozen=True)
class Reading:
    """One device at one moment; None is what the device does not tell.

    ``busy`` is the share of time in which a kernel ran; ``joules`` counts from when the driver was loaded.
    """

    at_s: float
    busy: float | None
    memory_bytes: float | None
    watts: float | None
    joules: float | None


class Gpu:
    """A device of NVML.

    Args:
        nvml: the module ``pynvml``, initialised.
        handle: the device's.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def read(self) -> Reading:
        """What it tells now."""
        rates, memory = self._ask("UtilizationRates"), self._ask("MemoryInfo")
        milliwatts, millijoules = self._ask("PowerUsage"), self._ask("TotalEnergyConsumption")
        return Reading(
            at_s=time.perf_counter(),
            busy=None if rates is None else rates.gpu / 100,
            memory_bytes=None if memory is None else float(memory.used),
            watts=None if milliwatts is None else milliwatts / 1000,
            joules=None if millijoules is None else millijoules / 1000,
        )

    def describe(self) -> dict[str, Any]:
        """Name, megabytes of memory, and the power limit in watts if it tells one."""
        memory, limit = self._ask("MemoryInfo"), self._ask("EnforcedPowerLimit")
        return {
            "name": self._ask("Name"),
            "memory_mb": None if memory is None else round(memory.total / 1e6),
            "power_limit_w": None if limit is None else round(limit / 1000),
        }

    def process_ids(self) -> set[int]:
        """Processes that compute on it, as the driver numbers them: in a container those of the host."""
        return {process.pid for process in self._ask("ComputeRunningProcesses") or ()}

    def _ask(self, what: str) -> Any:
        try:
            return getattr(self._nvml, f"nvmlDeviceGet{what}")(self._handle)
        except self._nvml.NVMLError:  # not supported, such as utilisation under MIG; or the device is lost
            return None


@dataclass(frozen=True)
class Gpus:
    """Devices whose figures are added up, and the driver's version."""

    devices: Sequence[Gpu]
    driver: str

    def of_processes(self, pids: Collection[int]) -> Gpus:
        """Those that these processes compute on; all if the driver names none of them (containers, WSL2)."""
        found = [device for device in self.devices if device.process_ids() & set(pids)]
        return Gpus(found or self.devices, self.driver)

    def describe(self) -> dict[str, Any]:
        """Driver and devices, for a document."""
        return {"driver": self.driver, "devices": [device.describe() for device in self.devices]}

    def around(self, measure: Callable[[], Sample], every_s: float = EVERY_S) -> Sample:
        """The sample, with what the devices did while it was taken; see `figures`."""
        readings: list[list[Reading]] = [[] for _ in self.devices]
        ended = threading.Event()

        def read() -> None:
            for device, found in zip(self.devices, readings, strict=True):
                found.append(device.read())

        def watch() -> None:
            while not ended.wait(every_s):
                read()

        read()
        watcher = threading.Thread(target=watch, name="gpu readings", daemon=True)
        watcher.start()
        try:
            sample = measure()
        finally:
            ended.set()
            watcher.join()
        read()
        return sample | figures(readings, sample["rate"])


def figures(readings: Sequence[Sequence[Reading]], rate: float) -> Sample:
    """What the readings of each device say; a figure that a device lacks is left out.

    Args:
        readings: those of each device, in the order of time, at least two.
        rate: texts a second meanwhile.

    Returns:
        ``gpu_busy``: the share of time in which a kernel ran, the devices' mean. ``gpu_memory_mb``: the most
        that was in use on all devices together, whoever uses it. ``gpu_watts``: their mean power together.
        ``rate_per_watt``: texts a second for each of these watts, which is texts per joule.
    """
    found: Sample = {}
    busy = _complete(_mean(_settled(device), lambda reading: reading.busy) for device in readings)
    memory = _complete(reading.memory_bytes for device in readings for reading in device)
    watts = _complete(map(_watts, readings))
    if busy is not None:
        found["gpu_busy"] = statistics.mean(busy)
    if memory is not None:
        moments = len(readings[0])
        found["gpu_memory_mb"] = max(sum(memory[moment::moments]) for moment in range(moments)) / 1e6
    if watts is not None and sum(watts) > 0:
        found["gpu_watts"] = sum(watts)
        found["rate_per_watt"] = rate / found["gpu_watts"]
    return found


def _settled(readings: Sequence[Reading]) -> Sequence[Reading]:
    """Those that are about the measurement alone; of a shorter one the last."""
    return [reading for reading in readings if reading.at_s >= readings[0].at_s + LAG_S] or readings[-1:]


def _watts(readings: Sequence[Reading]) -> float | None:
    """Mean power of a device: by its energy counter, which has no lag, or else the mean of its readings."""
    first, last = readings[0], readings[-1]
    if first.joules is not None and last.joules is not None and last.joules > first.joules:
        return (last.joules - first.joules) / (last.at_s - first.at_s)
    return _mean(_settled(readings), lambda reading: reading.watts)


def _mean(readings: Sequence[Reading], value: Callable[[Reading], float | None]) -> float | None:
    """None if any reading lacks the value."""
    values = _complete(map(value, readings))
    return None if values is None else statistics.mean(values)


def _complete(values: Iterable[float | None]) -> list[float] | None:
    """The values, or None if one of them is missing."""
    found = list(values)
    told = [value for value in found if value is not None]
    return told if len(told) == len(found) else None


@contextmanager
def open_gpus() -> Iterator[Gpus | None]:
    """All NVIDIA GPUs of this machine; None without ``nvidia-ml-py``, a driver or a device."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError:
        yield None
        return
    except nvml.NVMLError:
        yield None
        return
    try:
        devices = list(_devices(nvml))
        yield Gpus(devices, nvml.nvmlSystemGetDriverVersion()) if devices else None
    finally:
        nvml.nvmlShutdown()


def _devices(nvml: Any) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:  # lost, or not ours to use
            continue
        yield Gpu(nvml, handle)


def sentence(gpus: Mapping[str, Any]) -> str:
    """The devices of `Gpus.describe` for the top of a report."""
    devices = gpus["devices"]
    counts = Counter(device["name"] for device in devices)
    shown = ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())
    limits = {device["power_limit_w"] for device in devices}
    limit = "" if len(limits) > 1 or None in limits else f", power limit {limits.pop()} W"
    return f"GPU: {shown}, driver {gpus['driver']}{limit}{' each' if limit and len(devices) > 1 else ''}."

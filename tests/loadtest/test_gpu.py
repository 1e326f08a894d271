"""What the bench says of GPUs, with devices that are made up: every number is computed here once more."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.bench.compare import as_table
from loadtest.bench.document import as_document
from loadtest.bench.figures import Sample
from loadtest.bench.gpu import LAG_S, Gpus, Reading, figures, open_gpus, sentence
from loadtest.bench.grpc_client import Counts
from loadtest.bench.invariance import Invariance
from loadtest.bench.meter import Meter
from loadtest.bench.null_repository import ModelFolders
from loadtest.bench.report import as_markdown, tables
from loadtest.bench.rounds import Result
from tests.support.bench_settings import ENVIRONMENT, INT8_SETTINGS
from tests.support.nvml import FakeDevice, Nvml

SETTINGS = INT8_SETTINGS | {"precision": "FP16"}
GPU_KEYS = {"gpu_busy", "gpu_memory_mb", "gpu_watts", "rate_per_watt"}


def reading(
    at_s: float,
    busy: float | None = 0.5,
    megabytes: float | None = 1000.0,
    watts: float | None = 100.0,
    joules: float | None = None,
) -> Reading:
    return Reading(at_s, busy, None if megabytes is None else megabytes * 1e6, watts, joules)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens made-up devices."""

    def enter(*devices: FakeDevice) -> Gpus:
        monkeypatch.setitem(sys.modules, "pynvml", Nvml(*devices))
        context = open_gpus()
        found = context.__enter__()
        assert found is not None
        return found

    return enter


def test_the_figures_are_those_of_all_devices_together() -> None:
    one = [reading(10, 0.1, 500, 1, 7000), reading(12, 0.6, 900, 1, 7200), reading(14, 0.8, 700, 1, 7500)]
    other = [reading(10, 0.9, 200, 1, 50), reading(12, 0.2, 100, 1, 60), reading(14, 0.4, 250, 1, 90)]
    found = figures([one, other], rate=2700.0)
    assert found["gpu_busy"] == pytest.approx(((0.6 + 0.8) / 2 + (0.2 + 0.4) / 2) / 2)
    assert found["gpu_memory_mb"] == pytest.approx(900 + 100), "the most at one moment, not each one's most"
    assert found["gpu_watts"] == pytest.approx((7500 - 7000) / 4 + (90 - 50) / 4)
    assert found["rate_per_watt"] == pytest.approx(2700 / 135)


def test_what_nvml_averaged_over_the_time_before_does_not_count() -> None:
    before, after = reading(LAG_S - 0.01, busy=0.0, watts=20), reading(LAG_S, busy=0.9, watts=240)
    found = figures([[reading(0.0, busy=0.0, watts=20), before, after]], rate=1.0)
    assert (found["gpu_busy"], found["gpu_watts"]) == (0.9, 240)


def test_of_a_short_measurement_the_last_reading_counts() -> None:
    found = figures([[reading(0.0, busy=0.1, watts=20), reading(0.4, busy=0.7, watts=210)]], rate=1.0)
    assert (found["gpu_busy"], found["gpu_watts"]) == (0.7, 210)


@pytest.mark.parametrize("joules", [(None, None), (800.0, 800.0), (None, 900.0)])
def test_power_is_what_was_read_where_no_energy_was_counted(joules: Sequence[float | None]) -> None:
    first, last = joules
    three = [reading(0, joules=first), reading(2, watts=120), reading(3, watts=140, joules=last)]
    assert figures([three], rate=1.0)["gpu_watts"] == pytest.approx(130)


@pytest.mark.parametrize(
    ("lacking", "left_out"),
    [
        ({"busy": None}, {"gpu_busy"}),
        ({"megabytes": None}, {"gpu_memory_mb"}),
        ({"watts": None}, {"gpu_watts", "rate_per_watt"}),
        ({"watts": 0.0}, {"gpu_watts", "rate_per_watt"}),
    ],
)
def test_what_one_device_does_not_tell_is_not_made_up(lacking: dict[str, Any], left_out: set[str]) -> None:
    tells, lacks = [reading(0), reading(2)], [reading(0, **lacking), reading(2, **lacking)]
    both = [lacks, lacks] if lacking == {"watts": 0.0} else [tells, lacks]
    assert GPU_KEYS - set(figures(both, rate=1.0)) == left_out


def test_devices_are_read_while_something_is_measured(opened: Any) -> None:
    busy = FakeDevice(busy_percent=80, memory_used=(10**9, 3 * 10**9, 10**9), watts=120.0)
    idle = FakeDevice(busy_percent=0, memory_used=(5 * 10**8,), watts=30.0)
    seen: list[int] = []

    def measure() -> Sample:
        while busy.readings < 4:
            time.sleep(0.001)
        seen.append(busy.readings)
        return {"rate": 4500.0, "texts": 450}

    found = opened(busy, idle).around(measure, every_s=0.01)
    assert found["rate"] == 4500.0
    assert found["gpu_busy"] == pytest.approx(0.4)
    assert found["gpu_memory_mb"] == pytest.approx(3500)
    # The counter has whole millijoules, and the time between two calls of it and of the clock is not nothing.
    assert found["gpu_watts"] == pytest.approx(150, rel=0.05)
    assert found["rate_per_watt"] == pytest.approx(4500 / found["gpu_watts"])
    assert busy.readings > seen[0], "and once more at the end"


@pytest.mark.parametrize("serves", [True, False])
def test_a_meter_reads_the_devices_that_serve(opened: Any, serves: bool) -> None:
    counts = Counts(requests=0, texts=0, executions=0, sizes=Counter())
    statistics: Any = SimpleNamespace(read=lambda _model: counts)
    gpus = opened(FakeDevice()) if serves else None
    meter = Meter({}, statistics, ModelFolders("e", "t", "m"), [7], None, gpus)
    found = meter.around(lambda: {"rate": 1.0, "texts": 1})
    assert set(found) & GPU_KEYS == (GPU_KEYS if serves else set())


def test_reading_ends_with_what_is_measured_even_if_that_fails(opened: Any) -> None:
    def measure() -> Sample:
        raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        opened(FakeDevice()).around(measure, every_s=0.01)
    assert "gpu readings" not in {thread.name for thread in threading.enumerate()}


def test_what_a_device_does_not_support_is_left_out(opened: Any) -> None:
    device = FakeDevice(busy_percent=None, watts=None, limit_watts=None)
    gpus = opened(device)
    found = gpus.around(lambda: {"rate": 1.0, "texts": 1}, every_s=0.01)
    assert set(found) == {"rate", "texts", "gpu_memory_mb"}
    assert gpus.describe()["devices"] == [
        {"name": "NVIDIA Pretend", "memory_mb": 16000, "power_limit_w": None}
    ]


def test_only_the_devices_that_serve_are_counted(opened: Any) -> None:
    mine, other = FakeDevice(name="mine", pids=(11, 12)), FakeDevice(name="other", pids=(99,))
    gpus = opened(mine, other)
    assert [each["name"] for each in gpus.of_processes({12, 13}).describe()["devices"]] == ["mine"]
    # In a container the driver knows processes by other numbers.
    assert len(gpus.of_processes({13}).devices) == 2


def test_there_is_nothing_to_read_without_the_package_a_driver_or_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (None, Nvml(FakeDevice(), driver=None), Nvml(), Nvml(FakeDevice(lost=True))):
        monkeypatch.setitem(sys.modules, "pynvml", module)
        with open_gpus() as gpus:
            assert gpus is None


def test_nvml_is_shut_down_and_a_lost_device_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(FakeDevice(lost=True), FakeDevice(name="whole"))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with open_gpus() as gpus:
        assert gpus is not None
        assert [each["name"] for each in gpus.describe()["devices"]] == ["whole"]
        assert nvml.open == 1
    assert nvml.open == 0


ROUNDS = (
    # texts/s; busy, MB and joules of two devices at 0, 1.5 and 3 s
    (
        9000.0,
        ((0.2, 900, 0), (0.6, 1000, 300), (0.8, 1100, 750)),
        ((0.1, 800, 0), (0.5, 900, 200), (0.7, 1000, 450)),
    ),
    (
        6000.0,
        ((0.2, 900, 0), (0.4, 1000, 200), (0.6, 1000, 500)),
        ((0.1, 800, 0), (0.2, 900, 100), (0.4, 900, 250)),
    ),
    (
        9900.0,
        ((0.2, 900, 0), (0.7, 1000, 300), (0.9, 1200, 900)),
        ((0.1, 800, 0), (0.6, 900, 250), (0.8, 1050, 600)),
    ),
)


def _document(**environment: Any) -> dict[str, Any]:
    """A run of three rounds, made of readings."""
    rounds = []
    for rate, *devices in ROUNDS:
        readings = [
            [reading(1.5 * place, busy, mb, None, joules) for place, (busy, mb, joules) in enumerate(device)]
            for device in devices
        ]
        rounds.append({"rate": rate, "texts": 3 * rate, "p50_ms": 3.0} | figures(readings, rate))
    way = Result("http", "32 connections", {"connections": 32, "workers": 1}, rounds)
    return as_document([way], ENVIRONMENT | environment, SETTINGS, Invariance([]), {})


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[1]


def test_every_gpu_figure_of_the_report_is_what_the_readings_say(opened: Any) -> None:
    gpus = opened(FakeDevice(), FakeDevice()).describe()
    document = _document(gpus=gpus)
    watts = [(one[-1][2] + other[-1][2]) / 3.0 for _, one, other in ROUNDS]
    busy = [(one[1][0] + one[2][0] + other[1][0] + other[2][0]) / 4 for _, one, other in ROUNDS]
    megabytes = [
        max(mine[1] + its[1] for mine, its in zip(one, other, strict=True)) for _, one, other in ROUNDS
    ]
    each_watt = [rate / power for (rate, _, _), power in zip(ROUNDS, watts, strict=True)]
    (table, summary) = tables(document)
    shown = dict(zip(table.heads, table.rows[0], strict=True))
    assert shown["GPU busy"] == f"{_middle(busy):.2f}"
    assert shown["GPU MB"] == f"{_middle(megabytes):.0f}"
    assert shown["GPU W"] == f"{_middle(watts):.0f}"
    assert shown["texts/s/W"] == f"{_middle(each_watt):.1f}"
    (medians,) = (row["medians"] for row in document["ways"])
    assert medians["gpu_watts"] == pytest.approx(_middle(watts), rel=1e-5)
    assert medians["rate_per_watt"] == pytest.approx(_middle(each_watt), rel=1e-5)
    assert dict(document["summary"])[
        "HTTP, 32 connections: texts/s for each watt of the GPU"
    ] == pytest.approx(_middle(each_watt), rel=1e-5)
    assert summary.rows
    text = as_markdown(document)
    assert "GPU: 2 × NVIDIA Pretend, driver 580.1, power limit 300 W each." in text
    assert f"| {_middle(watts):.0f} | {_middle(each_watt):.1f} |" in text


def test_a_report_names_different_devices_and_no_limit_that_they_do_not_share(opened: Any) -> None:
    gpus = opened(FakeDevice(name="NVIDIA A"), FakeDevice(name="NVIDIA B", limit_watts=72)).describe()
    assert sentence(gpus) == "GPU: NVIDIA A, NVIDIA B, driver 580.1."
    alone = opened(FakeDevice(name="NVIDIA A")).describe()
    assert sentence(alone) == "GPU: NVIDIA A, driver 580.1, power limit 300 W."


def test_a_comparison_says_that_the_gpu_was_another_one(opened: Any) -> None:
    before, now = (_document(gpus=opened(FakeDevice(name=name)).describe()) for name in ("old", "new"))
    (row,) = [row for row in as_table(before, now).rows if row[0] == "measured with: gpus"]
    assert "old" in row[1]
    assert "new" in row[2]


def test_without_gpus_the_report_is_as_it_was() -> None:
    sample = {"rate": 100.0, "texts": 300, "p50_ms": 3.0, "gateway_cpu_s": 0.2}
    way = Result("http", "32 connections", {"connections": 32, "workers": 1}, [sample])
    document = as_document([way], ENVIRONMENT, SETTINGS, Invariance([]), {})
    assert document["environment"] == ENVIRONMENT
    assert set(document["ways"][0]["medians"]) == set(sample)
    assert "GPU" not in as_markdown(document)
    table, *_ = tables(document)
    assert list(table.heads) == ["", "texts/s", "p50 ms", "gateway CPU s"]
    assert not [what for what, _ in document["summary"] if "watt" in what]
    assert as_table(document, document).rows == []

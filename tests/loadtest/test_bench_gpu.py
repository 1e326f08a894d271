"""``tritonflare bench`` of a model that was exported for a GPU."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from export.repository.inventory import Published, read_inventory
from loadtest.bench.document import as_document
from loadtest.bench.invariance import Invariance
from loadtest.bench.report import about
from loadtest.bench.run import Plan
from tests.support.bundled import export_bundled
from tests.support.nvml import FakeDevice, Nvml
from tests.support.servers import finished
from tritonflare.bench import SECTIONS
from tritonflare.bench_gpu import about_device, for_device
from tritonflare.bench_stack import serving_gpus

PLAN = Plan(SECTIONS, 1, 0.3, (8,), (8,))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, exported for a GPU."""
    return export_bundled(tmp_path_factory.mktemp("cuda"), "fp16", target="cuda")


@pytest.fixture(scope="module")
def model(repository: Path) -> Published:
    (found,) = read_inventory(repository)
    return found


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 1e-3), ("fp32", 1e-4)])
def test_on_a_gpu_what_computes_in_process_is_left_out_and_the_gates_bound_holds(
    model: Published, precision: str, bound: float
) -> None:
    plan, left_out = for_device(PLAN, replace(model, precision=precision))
    assert set(SECTIONS) - set(plan.sections) == {"ceiling", "precision"}
    assert plan.bound == bound
    (sentence,) = left_out
    assert "compute on the CPU" in sentence


def test_on_a_cpu_everything_is_measured_as_ever(model: Published) -> None:
    taken_to_the_cpu = replace(PLAN, device="cpu")
    assert for_device(taken_to_the_cpu, model) == (taken_to_the_cpu, [])
    assert for_device(PLAN, replace(model, target="cpu")) == (PLAN, [])
    assert about_device(PLAN, replace(model, target="cpu")) == {}


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"sections": ("ceiling",)}, "for models that compute on the CPU"), ({"peers": ("mosec",)}, "--peers")],
)
def test_what_only_computes_on_a_cpu_is_refused_on_a_gpu(
    model: Published, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(click.UsageError, match=words):
        for_device(replace(PLAN, **changed), model)


@pytest.mark.parametrize(("largest", "holds"), [(9e-4, True), (1.1e-3, False)])
def test_the_bound_of_a_plan_decides_and_is_in_the_document(largest: float, holds: bool) -> None:
    invariance = Invariance([], 1e-3)
    invariance.answers, invariance.largest = 1, largest
    assert invariance.holds is holds
    assert as_document([], {}, {}, invariance, {})["invariance"]["bound"] == 1e-3


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({}, "@cf/x in FP16."),
        ({"device": "cuda"}, "@cf/x in FP16 on a GPU."),
        ({"device": "cpu"}, "@cf/x in FP16, which was exported for a GPU, on the CPU."),
    ],
)
def test_a_report_says_where_a_model_for_a_gpu_computed(device: dict[str, str], words: str) -> None:
    settings = {"load_generator": "", "rounds": 1, "seconds": 1.0, "texts": 1, "tokens_mean": 1.0}
    settings |= {"model": "@cf/x", "precision": "FP16", **device}
    assert about(as_document([], {"cpu": "", "cores": 2}, settings, Invariance([]), {}))[1].endswith(words)


def test_the_gpus_that_triton_computes_on_are_read_until_the_bench_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = Nvml(FakeDevice(name="other"), FakeDevice(name="ours", pids=(os.getpid(),)))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with ExitStack() as programs:
        server: Any = SimpleNamespace(device="cuda", pid=os.getpid())
        gpus = serving_gpus(server, programs)
        assert gpus is not None
        assert [device["name"] for device in gpus.describe()["devices"]] == ["ours"]
        assert nvml.open == 1
    assert nvml.open == 0


def test_no_gpu_is_looked_for_where_none_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(FakeDevice(pids=(os.getpid(),)))
    monkeypatch.setattr(nvml, "nvmlInit", lambda: pytest.fail("nothing here is about a GPU"))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with ExitStack() as programs:
        server: Any = SimpleNamespace(device="cpu", pid=os.getpid())
        assert serving_gpus(server, programs) is None


@pytest.mark.needs_triton
def test_a_model_for_a_gpu_is_measured_on_the_cpu_where_that_is_asked_for(
    repository: Path, tmp_path: Path
) -> None:
    short = ("--sections", "ceiling,http", "--rounds", "1", "--seconds", "0.3", "--connections", "8")
    options = (*short, "--load", "own", "--repository", str(repository), "--output", str(tmp_path / "out"))
    status, output = finished("bench", *options, "--device", "cpu", timeout=240)
    assert status == 0, output
    document = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert document["settings"]["device"] == "cpu"
    assert {row["section"] for row in document["ways"]} == {"ceiling", "http"}
    assert "gpus" not in document["environment"]
    assert "texts/s/W" not in output

    # In an environment for the CPU, whether there is a GPU or not.
    status, output = finished("bench", *options, timeout=240)
    assert status == 1
    assert "NVIDIA driver: not found" in output or "make serve-gpu" in output

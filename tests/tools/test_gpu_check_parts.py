"""The parts of the GPU check, with stand-ins for NVML, CUDA and TensorRT."""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from loadtest.client import Target
from tests.support.fake_nvml import FakeDevice, fake_nvml
from tests.support.plain_classifier import plain_model
from tools.gpu_check import load, page
from tools.gpu_check.ballast import LEFT_BYTES, ballast
from tools.gpu_check.job import CheckFailed, CheckSkipped, Job, Settings
from tools.gpu_check.killed_stub import Book, find_stub, keep_asking
from tools.gpu_check.machine import describe
from tools.gpu_check.plans import build, build_plan
from tools.gpu_check.session import DeviceSession

# --- the machine


def test_a_machine_without_nvml_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (describe()["driver"], describe()["gpus"]) == (None, [])


def test_the_machine_is_described_with_driver_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice("NVIDIA H200", memory_total=1_000_000_000, limit_watts=700)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(device, device, driver="550.54.15"))
    found = describe()
    assert found["gpus"] == [{"name": "NVIDIA H200", "memory_mb": 1000, "power_limit_w": 700}] * 2
    assert found["driver"] == "550.54.15"
    assert "nvidia-pytriton" in found["packages"]
    assert str(Path.home()) not in json.dumps(found)


# --- the device in this process


def test_a_device_that_is_not_there_is_one_sentence_and_never_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(plain_model(), file)
    with pytest.raises(CheckFailed, match=r"^ONNX Runtime found no CUDA|cannot be used") as refused:
        DeviceSession(file, "cuda")
    assert str(tmp_path) not in str(refused.value)


def test_all_but_the_last_of_the_gpus_free_memory_is_taken_and_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    class Cuda:
        def __getattr__(self, name: str) -> Callable[..., int]:
            def call(*arguments: Any) -> int:
                calls.append(name)
                if name == "cuMemGetInfo_v2":
                    arguments[0]._obj.value = LEFT_BYTES + 4096
                if name == "cuMemAlloc_v2":
                    calls.append(str(arguments[1].value))
                return 0

            return call

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Cuda())
    with ballast("cuda") as taken:
        assert taken == 4096
        assert "cuMemFree_v2" not in calls
    assert calls[-4:] == ["cuMemAlloc_v2", "4096", "cuMemFree_v2", "cuDevicePrimaryCtxRelease_v2"]


def test_a_driver_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(cuInit=lambda _flags: 100))
    with pytest.raises(CheckFailed, match="cuInit gave error 100"), ballast("cuda"):
        pass


# --- the killed stub


def _process(proc: Path, pid: int, parent: int, *words: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_bytes(b"\0".join(word.encode() for word in words) + b"\0")
    (proc / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1")


def test_the_encoders_stub_is_found_below_the_program_alone(tmp_path: Path) -> None:
    stub = "/x/triton_python_backend_stub"
    _process(tmp_path, 10, 1, "python", "-m", "tritonflare", "serve")
    _process(tmp_path, 11, 10, "tritonserver", "/models/a_encoder_fp16/1/model.py")
    _process(tmp_path, 12, 11, stub, "/models/tokenizer_x/1/model.py")
    _process(tmp_path, 13, 11, stub, "/models/a_encoder_fp16/1/model.py")
    _process(tmp_path, 20, 1, "tritonserver")
    _process(tmp_path, 21, 20, stub, "/models/a_encoder_fp16/1/model.py")
    (tmp_path / "self").mkdir()
    assert find_stub(10, "a_encoder_fp16", tmp_path) == 13
    with pytest.raises(CheckFailed, match="was not found"):
        find_stub(10, "a_encoder_fp32", tmp_path)


async def test_wrong_answers_refusals_and_lost_connections_are_counted_apart() -> None:
    right = {"result": [{"label": "A", "score": 0.25}, {"label": "B", "score": 0.75}]}
    wrong = {"result": [{"label": "A", "score": 0.5}, {"label": "B", "score": 0.5}]}
    answers = iter([(200, right), (503, {}), (200, wrong), None] * 50)
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(1 << 16):
            assert head.startswith(b"POST /run HTTP/1.1")
            given = next(answers, (200, right))
            if given is None:
                break
            body = json.dumps(given[1]).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (given[0], len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    book = Book()
    asking = asyncio.create_task(
        keep_asking(
            Target(f"http://{host}:{port}", "t", "/run"), ["x"], [{"A": 0.25, "B": 0.75}], 1e-3, book, ended
        )
    )

    async def enough() -> None:
        while len(book.right_s) < 60:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(enough(), 20)
    ended.set()
    await asking
    server.close()
    assert book.wrong == 50
    assert book.lost == 50
    assert book.statuses[503] == 50


def test_the_service_is_back_with_the_first_right_answer_to_a_later_request() -> None:
    book = Book(right_s=[(1.0, 9.0), (5.05, 5.2), (7.0, 8.0), (7.5, 7.9)])
    assert book.back_s(5.0) == pytest.approx(2.9), "requests that left before, or just then, do not count"
    assert book.back_s(8.0) is None


# --- TensorRT


def test_a_plan_needs_a_gpu_and_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(device: str) -> Job:
        return Job(Settings(device, True, tmp_path), tmp_path / "plan.json", time.monotonic() + 9)

    with pytest.raises(CheckSkipped, match="on a GPU only"):
        build(job("cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(CheckSkipped, match="tensorrt is not installed"):
        build(job("cuda"))


class _TensorRT:
    """As much of the module ``tensorrt`` as the check calls; notes the shapes of the profiles."""

    def __init__(self, content: bytes | None) -> None:
        self.shapes: list[tuple[str, Any, Any, Any]] = []
        self.profiles = 0
        built = SimpleNamespace(set_flag=lambda _flag: None, add_optimization_profile=self._added)
        self.Builder = lambda _logger: SimpleNamespace(
            create_network=lambda _flags: "network",
            create_builder_config=lambda: built,
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=lambda *shape: self.shapes.append(shape)
            ),
            build_serialized_network=lambda network, config: content,
        )

        class Logger:
            ERROR = 1

            def __init__(self, _level: int) -> None:
                pass

        self.Logger = Logger
        self.OnnxParser = lambda _network, _logger: SimpleNamespace(parse=lambda content: content == b"onnx")

    def _added(self, _profile: Any) -> None:
        self.profiles += 1


def test_a_plan_is_built_for_lengths_of_the_exporters_profiles(tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"onnx")
    trt = _TensorRT(b"plan")
    assert build_plan(trt, graph, 512) == b"plan"
    assert trt.profiles == 2
    assert ("input_ids", (1, 32), (32, 32), (64, 32)) in trt.shapes
    assert ("attention_mask", (1, 512), (2, 512), (64, 512)) in trt.shapes
    with pytest.raises(CheckFailed, match="built no plan"):
        build_plan(_TensorRT(None), graph, 512)
    graph.write_bytes(b"other")
    with pytest.raises(CheckFailed, match="cannot read"):
        build_plan(trt, graph, 512)


# --- the bench's plan, and the page


def test_the_whole_grid_is_measured_and_the_most_telling_ways_first() -> None:
    whole = load.grid(False, cores=16)
    planned = list(load.ways(whole))
    assert len(planned) == len(set(planned))
    over_http = {(way.precision, way.tokens, way.at_once) for way in planned if way.way == load.HTTP}
    assert over_http == {
        (precision, tokens, count)
        for precision in ("fp16", "fp32")
        for tokens in (load.SENTENCES, 16, 32, 64, 128, 256, 512)
        for count in (1, 8, 32, 128, 512)
    }
    assert planned[0].way == load.IN_PROCESS, "the ceiling comes before what is compared with it"
    first_lengths = next(place for place, way in enumerate(planned) if way.tokens != load.SENTENCES)
    assert {way.way for way in planned[:first_lengths]} == {load.IN_PROCESS, load.HTTP, load.NULL}
    # Without cores for them, no more processes of the gateway.
    assert {way.workers for way in load.ways(load.grid(False, cores=2))} == {1}
    assert {way.workers for way in planned} == {1, 8}


@pytest.mark.parametrize(
    ("script", "used"),
    [("echo 'wrk 4.1.0 [epoll]'", "wrk 4.1.0"), ("echo no luajit >&2; exit 127", "our own asyncio client")],
)
def test_a_wrk_that_does_not_run_here_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, used: str
) -> None:
    (tmp_path / "wrk").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load.load_generator()[1] == used


def test_the_ceiling_is_the_fastest_run_with_the_same_texts_and_precision() -> None:
    rows: list[dict[str, Any]] = [
        {"way": load.IN_PROCESS, "precision": "fp16", "tokens": 16, "rate": 10.0},
        {"way": load.IN_PROCESS, "precision": "fp16", "tokens": 16, "rate": 30.0},
        {"way": load.IN_PROCESS, "precision": "fp16", "tokens": 16, "error": "failed"},
        {"way": load.IN_PROCESS, "precision": "fp32", "tokens": 16, "rate": 99.0},
        {"way": load.HTTP, "precision": "fp16", "tokens": 16, "rate": 99.0},
    ]
    assert load.best_in_process(rows, "fp16", 16) == 30
    assert load.best_in_process(rows, "fp16", 32) is None


def _result(name: str, status: str = "passed", **more: Any) -> dict[str, Any]:
    about = {"name": name, "title": f"Title of {name}", "status": status, "found": "It | is so."}
    return {**about, "seconds": 1.0, "limit_s": 9.0, "figures": {}, "rows": [], "left_out": [], **more}


def _row(way: str, precision: str, tokens: int, at_once: int, **figures: float) -> dict[str, Any]:
    facts = {"way": way, "precision": precision, "tokens": tokens, "at_once": at_once, "workers": 1}
    return {**facts, **figures}


_MACHINE = {
    "cpu": "Some CPU", "cores": 16, "python": "3.12.3", "onnxruntime": "1.26.0", "driver": "580.1",
    "gpus": [{"name": "NVIDIA H200", "memory_mb": 150000}],
    "packages": {"nvidia-cudnn-cu12": "9.28", "tokenizers": "1"},
}  # fmt: skip


def test_the_page_names_gpu_driver_and_versions_and_what_the_gpu_did() -> None:
    rows = [
        _row(load.IN_PROCESS, "fp16", 0, 128, rate=20000.0),
        _row(load.HTTP, "fp16", 0, 128, rate=15000.0, p50_ms=8.0, p99_ms=16.0, of_ceiling=0.75,
             gpu_busy=0.88, gpu_memory_mb=2500.0, gpu_watts=300.0, rate_per_watt=50.0),
        _row(load.HTTP, "fp16", 512, 1) | {"error": "the server answered 503"},
    ]  # fmt: skip
    results = [
        _result("doctor", figures={"machine": _MACHINE}),
        _result("bench", rows=rows, figures={"load_generator": "wrk 4.1.0"}, left_out=["HTTP: no time"]),
        _result("plan", "skipped"),
    ]
    document = page.as_document("cuda", False, 400.0, "2026-01-02", results)
    text = page.as_markdown(document)
    assert text.startswith("## GPU check: NVIDIA H200\n")
    assert "`make gpu-check DEVICE=cuda` on 2026-01-02, 400 s." in text
    assert "driver 580.1; NVIDIA H200 with 150,000 MB; nvidia-cudnn-cu12 9.28." in text
    assert (
        "| FP16 HTTP | sentences | 128 connections | 15,000 | 0.75 | 8.0 | 16.0 | 88 | 2.5 | 300 | 50.0 |"
        in text
    )
    assert "| FP16 HTTP | 512 tokens | 1 connection | failed: the server answered 503 |" in text
    assert document["not_proven"] == [
        "Title of bench: 1 left out; gpu-check.json says which, and why.",
        "Title of plan (skipped): It | is so.",
        "Several GPUs: there is one here.",
    ]
    assert "It &#124; is so." in text, "a cell would end there"
    assert page.failed(document) == []


def test_a_run_on_the_cpu_says_first_that_it_proves_nothing_of_a_gpu() -> None:
    results = [
        _result("doctor", figures={"machine": _MACHINE | {"gpus": []}}),
        _result("stub", "failed", figures={"back_s": 1.5, "statuses": {"200": 3}}),
        _result("memory", "out of time"),
    ]
    document = page.as_document("cpu", True, 60.0, "2026-01-02", results)
    text = page.as_markdown(document)
    assert text.startswith("## GPU check: a run on the CPU\n")
    assert document["not_proven"][0].startswith("Everything that needs a GPU.")
    assert "- Title of memory (out of time): It | is so." in text
    assert "| statuses | 200: 3 |" in text
    assert page.failed(document) == ["Title of stub", "Title of memory"]

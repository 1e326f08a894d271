"""The parts of the GPU check, with stand-ins for NVML, CUDA and TensorRT."""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tritonclient.grpc import service_pb2

from embedded import gpu
from loadtest.bench.grpc_client import GrpcTarget
from loadtest.client import Target
from tests.support.cuda_steps import write_graph
from tests.support.nvml import FakeDevice, Nvml
from tests.support.plain_classifier import plain_model
from tools.gpu_check.__main__ import main
from tools.gpu_check.ballast import LEFT_BYTES, ballast
from tools.gpu_check.job import CheckFailed, CheckSkipped, Job, Settings
from tools.gpu_check.killed_stub import Book, find_stub, keep_asking
from tools.gpu_check.machine import choose_device, describe
from tools.gpu_check.masks import compare_masks, with_lengths
from tools.gpu_check.memory import _Caller
from tools.gpu_check.operators import by_provider, heavy_elsewhere, nodes_of
from tools.gpu_check.plans import build, build_plan
from tools.gpu_check.session import DeviceSession

# --- the machine


def test_a_machine_without_nvml_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (describe()["driver"], describe()["gpus"]) == (None, [])


def test_the_machine_is_described_with_driver_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice("NVIDIA H200", memory_total=1_000_000_000, limit_watts=700)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(device, device, driver="550.54.15"))
    found = describe()
    assert found["gpus"] == [{"name": "NVIDIA H200", "memory_mb": 1000, "power_limit_w": 700}] * 2
    assert found["driver"] == "550.54.15"
    assert "nvidia-pytriton" in found["packages"]
    assert str(Path.home()) not in json.dumps(found)


@pytest.mark.parametrize(
    ("driver", "devices", "expected"),
    [(False, [], "cpu"), (True, [FakeDevice()], "cuda"), (False, [FakeDevice()], "cuda")],
)
def test_auto_is_the_cpu_only_without_a_driver(
    monkeypatch: pytest.MonkeyPatch, driver: bool, devices: list[FakeDevice], expected: str
) -> None:
    nvml = Nvml(*devices) if devices else None
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(gpu, "_has_nvml", lambda: driver)
    assert choose_device("auto") == expected
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("nvml", "words"),
    [
        (None, "nvidia-ml-py: not installed"),
        (Nvml(), "finds no device"),
        (Nvml(FakeDevice(lost=True)), "GPU"),
    ],
)
def test_a_driver_whose_gpus_cannot_be_read_is_told_and_does_not_become_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nvml: Nvml | None, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(gpu, "_has_nvml", lambda: True)
    done = CliRunner().invoke(main, ["--output", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "There is an NVIDIA driver, but " in done.output
    assert words in done.output
    assert "--device cpu" in done.output
    assert not (tmp_path / "out").exists()


# --- operators


def _event(op: str, provider: str, size: int) -> dict[str, Any]:
    return {"cat": "Node", "args": {"op_name": op, "provider": provider, "output_size": str(size)}}


def test_arithmetic_of_the_model_on_another_provider_is_found_and_that_of_shapes_is_not() -> None:
    gpu_provider, cpu_provider = "CUDAExecutionProvider", "CPUExecutionProvider"
    events = [
        {"cat": "Session", "name": "model_run"},
        _event("MatMul", gpu_provider, 10**6),
        _event("Shape", cpu_provider, 16),
        _event("Slice", cpu_provider, 8 * 512),
        _event("Gather", cpu_provider, 8 * 512 + 1),
        _event("Gemm", cpu_provider, 8),
        _event("SkipLayerNormalization", cpu_provider, 8),
    ]
    nodes = nodes_of(events)
    assert by_provider(nodes)[gpu_provider] == {"MatMul": 1}
    found = [node.op for node in heavy_elsewhere(nodes, gpu_provider, tokens=512)]
    assert found == ["Gather", "Gemm", "SkipLayerNormalization"]


def test_the_profile_of_a_run_names_every_nodes_provider(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(plain_model(), file)
    ids = np.ones((2, 8), np.int64)
    nodes = nodes_of(DeviceSession(file, "cpu").profile(ids, ids, tmp_path / "profile"))
    assert {node.provider for node in nodes} == {"CPUExecutionProvider"}
    assert len(heavy_elsewhere(nodes, "CUDAExecutionProvider", ids.size)) > 0, "it would be seen"


def test_a_graph_with_lengths_in_the_place_of_its_mask_gives_the_same_logits(tmp_path: Path) -> None:
    found = compare_masks(write_graph(tmp_path), "cpu", tmp_path, texts=4, width=16)
    assert found["lengths_speed"] > 0
    assert found["largest"] < 1e-5
    changed = [
        each for each in onnx.load(tmp_path / "with_lengths.onnx").graph.node if "row_lengths" in each.input
    ]
    assert {node.op_type for node in changed} == {"MultiHeadAttention"}
    onnx.save(plain_model(), tmp_path / "plain.onnx")
    with pytest.raises(CheckFailed, match="no MultiHeadAttention"):
        with_lengths(tmp_path / "plain.onnx", tmp_path / "other.onnx")


# --- the ceiling


def test_a_run_on_the_device_copies_nothing_and_gives_the_same_logits(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(plain_model(), file)
    session = DeviceSession(file, "cpu")
    bound: list[Any] = []
    real = session._device.session

    class Watched:
        io_binding = real.io_binding

        def run_with_iobinding(self, binding: Any) -> None:
            real.run_with_iobinding(binding)
            bound.extend(binding.get_outputs())

    session._device.session = Watched()
    ids = np.arange(16, dtype=np.int64).reshape(2, 8)
    session.on_device(ids, np.ones_like(ids))()
    session._device.session = real
    (logits,) = bound
    assert logits.device_name() == "cpu"
    assert np.array_equal(logits.numpy(), session.run(ids, np.ones_like(ids)))


# --- out of memory


def test_a_call_to_triton_has_no_deadline() -> None:
    left: list[float] = []

    def infer(_request: bytes, context: grpc.ServicerContext) -> bytes:
        left.append(context.time_remaining())
        answer = service_pb2.ModelInferResponse(raw_output_contents=[np.zeros(2, np.float32).tobytes()])
        return bytes(answer.SerializeToString())

    method: Any = grpc.unary_unary_rpc_method_handler(infer)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert _Caller(GrpcTarget(f"127.0.0.1:{port}", ()), "m").ask(["x"]).shape == (1, 2)
    finally:
        server.stop(None).wait()
    assert left[0] > 1e9, "seconds; without a deadline, gRPC gives the largest number that it has"


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

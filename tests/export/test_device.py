"""The encoder's device for CUDA on ONNX Runtime's CPU provider: answers, order of runs, memory, refusals."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from export.reference import logits as reference
from export.triton_models import device, encoder_threads
from export.triton_models.device import CpuDevice, CudaDevice, DeviceError, NoCudaError
from export.triton_models.pinned_memory import PinnedMemory
from tests.support.cuda_steps import Encoder, cuda_config, on_the_cpu
from tests.support.small_checkpoints import write_checkpoint

LABELS = 3
BOUNDS = {"fp32": 2e-5, "fp16": 3e-2}
OUT_OF_MEMORY = "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 4096"


@pytest.fixture(params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def write_graph(folder: Path, precision: str = "fp32", family: str = "distilbert") -> Path:
    source = write_checkpoint(folder / "m", labels=LABELS, family=family)
    graph = build_graph(load_checkpoint(source).encoder, precision, "fused")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return folder / "model.onnx"


def rows_of(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [[2, *rng.integers(4, 50, length - 2).tolist(), 3] for length in lengths]


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Encoder]:
    on_the_cpu(monkeypatch)
    encoder = Encoder(write_graph(tmp_path), cuda_config())
    yield encoder
    encoder.close()


ROWS = rows_of(3, 60, 7, 8, 9, 31, 3, 64, 15, 16, 17, 40, 5, 6, 7, 33)


@pytest.mark.parametrize("family", ["distilbert", "bert", "roberta"])
def test_answers_are_the_references_alone_padded_and_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, family: str
) -> None:
    on_the_cpu(monkeypatch)
    weights = load_checkpoint(write_checkpoint(tmp_path / "m", labels=LABELS, family=family)).encoder
    wanted = np.array([reference(weights, row) for row in ROWS])
    encoder = Encoder(write_graph(tmp_path, precision, family), cuda_config())
    alone = np.concatenate([encoder.logits([row]) for row in ROWS])
    together = encoder.logits(ROWS)
    mixed = encoder.logits(ROWS[:5], [ROWS[5]], ROWS[6:])
    encoder.close()
    assert np.abs(alone - wanted).max() < BOUNDS[precision]
    assert len(np.unique(wanted.round(2), axis=0)) > len(ROWS) // 2  # no mix-up can hide
    for found in (together, mixed):
        assert np.abs(_probabilities(found) - _probabilities(alone)).max() <= 1e-3
        assert found.dtype == np.float32


def _probabilities(logits: Any) -> Any:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_a_rerankers_token_types_reach_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    source = write_checkpoint(tmp_path / "m", labels=1, family="bert")
    graph = build_graph(load_checkpoint(source, tmp_path / "work").encoder, "fp32", "fused")
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    encoder = Encoder(tmp_path / "model.onnx", cuda_config())
    assert "token_type_ids" in encoder.device.inputs
    row = rows_of(12)[0]
    plain, typed = (
        encoder.ask([row], types=[types])[0].tensors["logits"] for types in ([0] * 12, [0] * 6 + [1] * 6)
    )
    encoder.close()
    assert np.abs(plain - typed).max() > 1e-3


def test_groups_are_padded_to_multiples_of_8_within_the_models_limit(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, run = [], encoder.device.run

    def watched(inputs: Any, *, shrink: bool = False) -> Any:
        shapes.append(inputs["input_ids"].shape)
        assert all(tensor.flags.c_contiguous and tensor.dtype == np.int64 for tensor in inputs.values())
        return run(inputs, shrink=shrink)

    monkeypatch.setattr(encoder.device, "run", watched)
    encoder.logits(rows_of(3))
    encoder.logits(rows_of(9, 10))
    encoder.logits(rows_of(63))
    assert shapes == [(1, 8), (2, 16), (1, 64)]
    padding = encoder.threads.padding
    assert (padding.read, padding.computed) == (3 + 19 + 63, 8 + 32 + 64)


class Gate:
    """In place of ``session.run_with_iobinding``: says how many runs are under way, and holds them."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.lock = threading.Lock()
        self.under_way = self.most = 0
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.entered.release()
        assert self.leave.acquire(timeout=600)
        self.session.run_with_iobinding(binding, options)
        with self.lock:
            self.under_way -= 1


def test_one_run_is_under_way_while_the_next_group_is_prepared(encoder: Encoder) -> None:
    rows = rows_of(5, 6, 20)
    wanted = encoder.logits(rows)
    gate = encoder.device.session = Gate(encoder.device.session)
    prepared: list[int] = []
    ready = threading.Semaphore(0)
    output = device._Buffers.output

    def bound(self: Any, count: int, labels: int) -> Any:
        prepared.append(count)
        ready.release()
        return output(self, count, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device._Buffers, "output", bound)
        (first,) = encoder.send(rows[:2])
        assert gate.entered.acquire(timeout=600)
        (second,) = encoder.send(rows[2:])
        assert ready.acquire(timeout=600)
        assert ready.acquire(timeout=600)  # the second group, while the first one computes
        assert (prepared, gate.under_way) == ([2, 1], 1)
        assert first.answers.empty()
        gate.leave.release(2)
        found = [request.answers.get(timeout=600)[0].tensors["logits"] for request in (first, second)]
    assert gate.most == 1
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-6)


def limited(encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[tuple[int, int, bool]]:
    """Let memory run out above so many computed tokens; returns the runs: texts, width, shrinking."""
    runs, run = [], encoder.device.session.run_with_iobinding
    inner = encoder.device.run

    def watched(inputs: Any, *, shrink: bool = False) -> Any:
        runs.append((*inputs["input_ids"].shape, shrink))
        return inner(inputs, shrink=shrink)

    def short(binding: Any, options: Any) -> None:
        count, width, _ = runs[-1]
        if count * width > tokens:
            raise RuntimeError(OUT_OF_MEMORY)
        run(binding, options)

    monkeypatch.setattr(encoder.device, "run", watched)
    monkeypatch.setattr(encoder.device, "session", _with_run(encoder.device.session, short))
    return runs


def _with_run(session: Any, run: Callable[[Any, Any], None]) -> Any:
    return SimpleNamespace(io_binding=session.io_binding, run_with_iobinding=run)


@pytest.mark.parametrize(("tokens", "halved"), [(2048, 0), (256, 1), (128, 3), (64, 7), (32, 15)])
def test_a_group_is_halved_until_memory_suffices_and_no_text_is_lost(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tokens: int, halved: int
) -> None:
    rows = rows_of(*range(17, 33))  # 16 texts, padded to 32 tokens
    wanted = encoder.logits(rows)
    runs = limited(encoder, monkeypatch, tokens)
    np.testing.assert_allclose(encoder.logits(rows), wanted, atol=1e-6)
    assert encoder.threads.padding.halved == halved
    assert runs[0] == (16, 32, False)
    assert all(shrink for _, _, shrink in runs[1:])  # what no run uses goes back to the GPU
    assert len(encoder.warnings) == (halved > 0)  # once, not for each group
    if halved:
        assert encoder.warnings[0].startswith("GPU 0 ran out of memory for 16 texts of 32 tokens")


def test_a_text_that_never_fits_fails_with_the_reason_and_its_neighbours_are_answered(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_threads, "PAUSE_S", 0.001)
    rows = rows_of(12, 13, 14, 60)
    wanted = encoder.logits(rows)
    runs = limited(encoder, monkeypatch, 32)
    good, bad = encoder.ask(rows[:3], rows[3:])
    np.testing.assert_allclose(good.tensors["logits"], wanted[:3], atol=1e-6)
    assert bad.error.args == ("inference failed: out of memory",)
    alone = [run for run in runs if run[:2] == (1, 64)]
    assert len(alone) in (2, 3)  # once fewer after its group was halved
    assert alone[-1][2]


def test_memory_that_comes_back_answers_a_text_that_was_alone(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failures = encoder.device.session.run_with_iobinding, [1, 1]

    def short(binding: Any, options: Any) -> None:
        if failures:
            failures.pop()
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=/a/b.cc")
        run(binding, options)

    monkeypatch.setattr(encoder.device, "session", _with_run(encoder.device.session, short))
    (response,) = encoder.ask(rows_of(9))
    assert response.error is None
    assert encoder.threads.padding.halved == 0


def test_another_failure_is_no_reason_to_halve_and_fails_its_own_text_alone(encoder: Encoder) -> None:
    rows = [*rows_of(9, 10, 11), [2, 10_000, 3]]
    good, bad = encoder.ask(rows[:3], rows[3:])
    assert good.error is None
    assert bad.error.args == ("inference failed: RuntimeError",)
    assert encoder.threads.padding.halved == 0
    assert encoder.warnings == []


def test_halved_groups_are_counted_beside_the_padding_of_a_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: dict[str, float] = {}

    class MetricFamily:
        COUNTER = "counter"

        def __init__(self, name: str, **_: Any) -> None:
            self.name = name
            counted[name] = 0

        def Metric(self, labels: dict[str, str]) -> Any:
            return SimpleNamespace(increment=self._increment)

        def _increment(self, value: float) -> None:
            counted[self.name] += value

    on_the_cpu(monkeypatch)
    monkeypatch.setattr(encoder_threads.Padding, "EVERY_S", 0)
    module = SimpleNamespace(MetricFamily=MetricFamily)
    encoder_threads.Padding(module, "m", halves=False).close()
    assert set(counted) == {"tritonflare_encoder_tokens_total", "tritonflare_encoder_computed_tokens_total"}
    padding = encoder_threads.Padding(module, "m", halves=True)
    padding.read, padding.computed, padding.halved = 1, 2, 3
    padding.tell(threading.Lock())
    assert list(counted.values()) == [1, 2, 3]
    assert list(counted)[2] == "tritonflare_encoder_halved_groups_total"
    padding.tell(threading.Lock())
    assert list(counted.values()) == [1, 2, 3]


def test_without_cuda_a_model_is_refused_in_a_sentence_and_not_answered_by_the_cpu(
    tmp_path: Path,
) -> None:
    with pytest.raises(NoCudaError) as refusal, pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        Encoder(write_graph(tmp_path), cuda_config())
    assert str(refusal.value) == (
        "ONNX Runtime found no CUDA: it needs onnxruntime-gpu, an NVIDIA driver, and the libraries of CUDA "
        "and cuDNN."
    )


@pytest.mark.parametrize(
    ("own", "forced", "taken"),
    [
        ("cuda", "", "cuda"),
        ("cuda", "cuda", "cuda"),
        ("cuda", "cpu", "cpu"),
        ("", "", "cpu"),
        ("", "cuda", "cpu"),
    ],
)
def test_the_environment_takes_a_model_for_a_gpu_to_the_cpu_and_no_other_to_a_gpu(
    monkeypatch: pytest.MonkeyPatch, own: str, forced: str, taken: str
) -> None:
    monkeypatch.setenv(device.DEVICE, forced)
    assert device.wanted_device({"device": own} if own else {}) == taken


@pytest.mark.parametrize(("own", "forced"), [("tpu", ""), ("cuda", "gpu")])
def test_an_unknown_device_is_named(monkeypatch: pytest.MonkeyPatch, own: str, forced: str) -> None:
    monkeypatch.setenv(device.DEVICE, forced)
    with pytest.raises(DeviceError, match=f"'{forced or own}' is no device; known are cpu and cuda"):
        device.wanted_device({"device": own})


def test_a_model_for_a_gpu_runs_on_the_cores_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device.DEVICE, "cpu")
    monkeypatch.setattr(device, "cores", lambda: 2)
    config = cuda_config()
    opened = device.open_device({}, config, write_graph(tmp_path, "fp16"), pytest.fail)
    assert isinstance(opened, CpuDevice)
    assert (opened.threads, opened.runs_at_once, opened.policy) == (2, 2, device.CPU)


def broken(*numbers: int) -> Callable[..., Any]:
    """In place of CudaDevice: these GPUs fail."""
    opened = []

    def make(model: Path, number: int, policy: Any) -> Any:
        opened.append(number)
        if number in numbers:
            raise DeviceError(f"GPU {number} cannot be used: CUDA failure 46.")
        return SimpleNamespace(name=f"GPU {number}", warm_up=lambda: "", opened=opened)

    return make


@pytest.mark.parametrize(
    ("own", "fail", "taken"), [(0, (), [0]), (1, (1,), [1, 2]), (2, (2,), [2, 0]), (1, (1, 2), [1, 2, 0])]
)
def test_a_gpu_that_fails_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, own: int, fail: tuple[int, ...], taken: list[int]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(device, "CudaDevice", broken(*fail))
    args = {"model_instance_device_id": str(own)}
    opened: Any = device.open_device(args, cuda_config(gpus=(0, 1, 2)), Path("model.onnx"), said.append)
    assert opened.opened == taken
    failures = [f"GPU {number} cannot be used: CUDA failure 46." for number in fail]
    moved = [f"GPU {own} is left out: what was to run there runs on GPU {taken[-1]} as well."]
    assert said == failures + moved * bool(fail)


def test_without_any_gpu_that_works_the_first_failure_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CudaDevice", broken(0, 1))
    with pytest.raises(DeviceError, match=r"^GPU 1 cannot be used: CUDA failure 46\.$"):
        device.open_device({"model_instance_device_id": "1"}, cuda_config((0, 1)), Path("m"), lambda _: None)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/core/providers/cuda/cuda_call.cc:129 CudaCall "
            "CUDA failure 101: invalid device ordinal ; GPU=-1 ; hostname=box ; file=/a/b.cc ; line=3",
            "CUDA failure 101: invalid device ordinal",
        ),
        ("/a/b.cc:3 CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=box",
         "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"),
        ("Load model from /secret/model.onnx failed", "RuntimeError"),
    ],
)  # fmt: skip
def test_a_refusal_has_cudas_words_and_neither_paths_nor_hosts(message: str, said: str) -> None:
    assert device.reason(RuntimeError(message)) == said


@pytest.mark.parametrize(
    ("problem", "short"),
    [
        (RuntimeError(OUT_OF_MEMORY), True),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0"), True),
        (RuntimeError("Available memory of 12 is smaller than requested bytes of 4096"), True),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA failure 700: an illegal memory access was encountered"), False),
        (ValueError("indices element out of data bounds"), False),
    ],
)
def test_only_a_lack_of_memory_counts_as_one(encoder: Encoder, problem: Exception, short: bool) -> None:
    assert encoder.device.out_of_memory(problem) is short
    assert not CpuDevice.out_of_memory(encoder.device, problem)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [(2048, ""), (300, "GPU 0 has memory for 4 texts of 64 tokens at once, not for 32.")],
)
def test_the_largest_group_is_computed_first_or_said_not_to_fit(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tokens: int, said: str
) -> None:
    runs = limited(encoder, monkeypatch, tokens)
    assert encoder.device.warm_up() == said
    assert runs[0] == (32, 64, False)


def test_a_gpu_without_memory_for_a_single_text_cannot_be_used(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(encoder, monkeypatch, 63)
    with pytest.raises(DeviceError, match=r"^GPU 0 has too little free memory for a text of 64 tokens\.$"):
        encoder.device.warm_up()


def test_a_graph_that_does_not_run_is_no_lack_of_memory(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(binding: Any, options: Any) -> None:
        raise RuntimeError("CUDA failure 209: no kernel image is available for execution ; file=/a/b")

    monkeypatch.setattr(encoder.device, "session", _with_run(encoder.device.session, broken))
    with pytest.raises(DeviceError, match=r"^GPU 0 cannot be used: CUDA failure 209: no kernel image is"):
        encoder.device.warm_up()


class Driver:
    """In place of libcuda: notes its calls; those named in ``failing`` fail."""

    def __init__(self, **failing: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failing = failing

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append((name, *(getattr(each, "value", each) for each in arguments)))
            return self.failing.get(name, 0)

        return call

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]


def test_buffers_are_locked_in_the_gpus_own_context_and_unlocked_at_the_end() -> None:
    driver = Driver()
    memory = PinnedMemory(3, driver)
    assert driver.calls[1][0] == "cuDeviceGet"
    assert driver.calls[1][2] == 3
    array = memory.array(1000, np.int64)
    assert (array.shape, array.dtype, array.any()) == ((1000,), np.int64, False)
    array[:] = 1  # writable
    registered = next(call for call in driver.calls if call[0] == "cuMemHostRegister_v2")
    assert registered[1:] == (array.ctypes.data, 8000, 1)
    assert array.ctypes.data % 4096 == 0
    address = array.ctypes.data
    memory.close()
    assert ("cuMemHostUnregister", address) in driver.calls
    assert driver.names[-1] == "cuDevicePrimaryCtxRelease_v2"
    assert driver.names.count("cuCtxPushCurrent_v2") == driver.names.count("cuCtxPopCurrent_v2") == 2
    assert memory.problem == ""


@pytest.mark.parametrize("call", ["cuInit", "cuDevicePrimaryCtxRetain", "cuMemHostRegister_v2"])
def test_memory_that_cannot_be_locked_is_used_as_it_is_and_said(call: str) -> None:
    driver = Driver(**{call: 801})
    memory = PinnedMemory(0, driver)
    first, second = memory.array(4, np.int64), memory.array(4, np.float32)
    first[:] = second[:] = 7
    assert memory.problem == f"{call} failed with CUDA error 801"
    assert driver.names.count("cuMemHostRegister_v2") == (call == "cuMemHostRegister_v2")
    memory.close()
    assert "cuMemHostUnregister" not in driver.names


def test_a_machine_without_a_driver_is_said_not_to_lock_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert PinnedMemory(0).problem == "libcuda.so.1 cannot be loaded"
    assert PinnedMemory(None).problem == ""


def test_cuda_is_asked_for_exact_fp32_little_memory_and_no_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def session(model: str, settings: Any, providers: Any, enable_fallback: int) -> Any:
        asked.extend((providers, enable_fallback, settings.intra_op_num_threads))
        raise RuntimeError("CUDA failure 999: unknown error ; file=/a")

    monkeypatch.setattr(device.ort, "InferenceSession", session)
    with pytest.raises(DeviceError, match=r"^GPU 2 cannot be used: CUDA failure 999: unknown error\.$"):
        CudaDevice(tmp_path / "model.onnx", 2, device.GpuGroupPolicy())
    ((provider, options),), fallback, threads = asked
    assert (provider, fallback, threads) == ("CUDAExecutionProvider", 0, 1)
    assert options == {
        "device_id": "2",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
    }

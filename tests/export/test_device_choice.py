"""Which device an encoder gets, what it says of one that cannot be used, and page-locked memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.triton_models import device
from export.triton_models.device import CpuDevice, CudaDevice, DeviceError, NoCudaError
from export.triton_models.pinned_memory import PinnedMemory
from export.triton_models.text_queue import CPU, GpuGroupPolicy
from tests.support.cuda_steps import (
    CUDA_FAILURE,
    Encoder,
    cuda_config,
    has_provider,
    where_no_gpu_is,
    write_graph,
)


@where_no_gpu_is
def test_without_cuda_a_model_is_refused_in_a_sentence_and_not_answered_by_the_cpu(
    tmp_path: Path,
) -> None:
    graph = write_graph(tmp_path)
    if has_provider():
        with pytest.raises(DeviceError, match=f"^GPU 0 cannot be used: {CUDA_FAILURE}[^/]*$"):
            Encoder(graph, cuda_config())
        return
    with pytest.raises(NoCudaError) as refusal, pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        Encoder(graph, cuda_config())
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
    assert (opened.threads, opened.runs_at_once, opened.policy) == (2, 2, CPU)


def broken(*numbers: int) -> Callable[..., Any]:
    """In place of CudaDevice: these GPUs fail."""
    opened = []

    def make(model: Path, number: int, policy: Any, warn: Any) -> Any:
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
        asked.extend((providers, enable_fallback, settings.intra_op_num_threads, settings.enable_mem_pattern))
        raise RuntimeError("CUDA failure 999: unknown error ; file=/a")

    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    with pytest.raises(DeviceError, match=r"^GPU 2 cannot be used: CUDA failure 999: unknown error\.$"):
        CudaDevice(tmp_path / "model.onnx", 2, GpuGroupPolicy())
    ((provider, options),), fallback, threads, patterns = asked
    assert (provider, fallback, threads, patterns) == ("CUDAExecutionProvider", 0, 1, False)
    assert options == {
        "device_id": "2",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
    }

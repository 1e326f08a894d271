"""What is said of a host's GPU, with a stand-in for NVML."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from embedded import gpu
from embedded.errors import EmbeddedError
from embedded.host import HostFinding
from tests.support.nvml import MIB, FakeDevice, Nvml, install

LOAD_PROVIDER, LOADER = gpu._load_provider, gpu._LOAD_PROVIDER


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install(monkeypatch)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages that are installed, by version; what `serve-gpu.txt` installs."""
    packages = {
        "nvidia-cuda-runtime-cu12": "12.9.79",
        "nvidia-cudnn-cu12": "9.28.0.42",
        "nvidia-ml-py": "13.615.71",
        "onnxruntime-gpu": "1.26.0",
    }

    def version(name: str) -> str:
        if name not in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return packages


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What loading the provider in a process of its own comes to."""
    answer = {"cuda": "12.8", "problem": ""}
    gpu._cuda_of_provider.cache_clear()
    monkeypatch.setattr(gpu, "_load_provider", lambda: answer)
    return answer


def refused() -> str:
    with pytest.raises(EmbeddedError) as error:
        gpu.require()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_host_with_a_gpu_passes_and_shows_what_it_has(nvml: Nvml, installed: dict[str, str]) -> None:
    nvml.devices.append(FakeDevice("NVIDIA L4", memory_used=(22934 * MIB,), memory_total=23034 * MIB))
    assert gpu.findings() == [
        HostFinding("NVIDIA driver", "550.54.15, for CUDA up to 12.4"),
        HostFinding("GPU 0", "Tesla T4, 14000 MiB of 15360 MiB free"),
        HostFinding("GPU 1", "NVIDIA L4, 100 MiB of 23034 MiB free"),
        HostFinding("onnxruntime-gpu", "1.26.0, for CUDA 12.8"),
        HostFinding("CUDA libraries", "CUDA 12.9.79, cuDNN 9.28.0.42"),
    ]
    gpu.require()
    assert nvml.open == 0


def test_libraries_that_are_no_packages_are_those_of_the_system(
    nvml: Nvml, installed: dict[str, str]
) -> None:
    for name in ("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12"):
        del installed[name]
    assert gpu.findings()[-1] == HostFinding("CUDA libraries", "CUDA of the system, cuDNN of the system")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            Nvml.NVMLError_LibraryNotFound(),
            r"not found\. Install NVIDIA's driver, 525 or newer, or take --dev",
        ),
        (Nvml.NVMLError_DriverNotLoaded(), r"its kernel module is not loaded\. Run `sudo modprobe nvidia`"),
        (
            Nvml.NVMLError_LibRmVersionMismatch(),
            r"updated, while the old one still runs\. Restart the machine",
        ),
        (Nvml.NVMLError("Unknown Error"), r"does not work: Unknown Error\. See what `nvidia-smi` says"),
    ],
)
def test_a_driver_that_does_not_work_is_told(
    nvml: Nvml, installed: dict[str, str], error: Exception, sentence: str
) -> None:
    nvml.fails["init"] = error
    with pytest.raises(EmbeddedError, match=rf"^NVIDIA driver: {sentence}"):
        gpu.require()
    assert nvml.open == 0


def test_no_driver_is_told_before_a_missing_package(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(gpu, "_NVML", "libnothing-of-this-name.so.1")
    assert refused().startswith("NVIDIA driver: not found. Install NVIDIA's driver, 525 or newer")
    with pytest.raises(EmbeddedError, match=r"^NVIDIA driver: not found\. Install"):
        gpu.require_driver()


def test_with_a_driver_the_missing_bindings_are_asked_for(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(gpu, "_NVML", "libc.so.6")  # any that can be loaded
    assert refused().startswith("nvidia-ml-py: not installed. To install it, run `make serve-gpu`")
    gpu.require_driver()


def test_a_driver_without_a_device_is_told(nvml: Nvml, installed: dict[str, str]) -> None:
    nvml.devices = []
    assert refused().startswith("GPU: the driver 550.54.15 finds no device. See what `nvidia-smi -L` lists")


def test_only_devices_that_are_lost_are_told(nvml: Nvml, installed: dict[str, str]) -> None:
    nvml.devices[0].lost = True
    assert refused().startswith("GPU: the driver reports GPU is lost. See what `nvidia-smi` says")
    assert nvml.open == 0


def test_a_device_that_is_lost_does_not_stop_the_others(nvml: Nvml, installed: dict[str, str]) -> None:
    nvml.devices.append(FakeDevice("NVIDIA L4", memory_used=(22934 * MIB,), memory_total=23034 * MIB))
    nvml.devices[0].lost = True
    gpu.require()
    assert gpu.findings()[1:3] == [
        HostFinding("GPU 0", "number 0, cannot be used: the driver reports GPU is lost"),
        HostFinding("GPU 1", "NVIDIA L4, 100 MiB of 23034 MiB free"),
    ]


def test_a_device_whose_memory_is_not_told_is_used(
    nvml: Nvml, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: FakeDevice) -> None:
        raise nvml.NVMLError("Insufficient Permissions")

    monkeypatch.setattr(nvml, "nvmlDeviceGetMemoryInfo", refuse)
    gpu.require()
    assert gpu.findings()[1] == HostFinding("GPU 0", "Tesla T4, its free memory is not known")


def test_libraries_are_loaded_once_and_a_restart_does_not_wait_for_them(
    nvml: Nvml, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, provider: dict[str, str]
) -> None:
    loaded: list[bool] = []

    def load() -> dict[str, str]:
        loaded.append(True)
        return dict(provider)

    monkeypatch.setattr(gpu, "_load_provider", load)
    provider["problem"] = "libcudnn.so.9: cannot open shared object file"
    assert refused().startswith("CUDA libraries: libcudnn.so.9 is missing")
    provider["problem"] = ""  # it was installed meanwhile
    gpu.require()
    gpu.require()
    assert len(loaded) == 2


@pytest.mark.parametrize(("value", "hidden"), [("", True), ("-1", True), ("0", False), ("1,0", False)])
def test_devices_that_are_hidden_are_told(
    nvml: Nvml, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, value: str, hidden: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    if hidden:
        assert refused().startswith("GPU: hidden by CUDA_VISIBLE_DEVICES. Unset that variable")
    else:
        gpu.require()


@pytest.mark.parametrize(
    ("driver", "known", "built", "remedy"),
    [
        ("470.82.01", 11040, "12.8", "Install driver 525 or newer"),
        ("550.54.15", 12040, "13.0", "Install driver 580 or newer"),
        ("580.95.05", 13000, "14.1", "Install a newer driver"),
        # Within a major version, and with a newer one, any will do.
        ("525.60.13", 12000, "12.8", None),
        ("580.95.05", 13000, "12.8", None),
    ],
)
def test_a_driver_too_old_for_what_onnxruntime_was_built_for_is_told(
    nvml: Nvml,
    installed: dict[str, str],
    provider: dict[str, str],
    driver: str,
    known: int,
    built: str,
    remedy: str | None,
) -> None:
    nvml.driver, nvml.cuda, provider["cuda"] = driver, known, built
    first = gpu.findings()[0]
    assert first.found.startswith(f"{driver}, for CUDA up to {known // 1000}.{known % 1000 // 10}")
    assert first.ok == (remedy is None)
    if remedy is not None:
        assert f"but onnxruntime-gpu was built for CUDA {built}. {remedy}, or take --device cpu" in refused()


@pytest.mark.parametrize(
    ("gpu_version", "plain", "sentence"),
    [
        (
            None,
            "1.32.0",
            "not installed, only onnxruntime 1.32.0 for CPUs. To install it, run `make serve-gpu`",
        ),
        (None, None, "not installed. To install it, run `make serve-gpu`"),
        (
            "1.26.0",
            "1.32.0",
            "1.26.0 beside onnxruntime 1.32.0, and each overwrites the other's files. Make a new",
        ),
    ],
)
def test_an_onnxruntime_that_knows_no_gpu_is_told(
    nvml: Nvml, installed: dict[str, str], gpu_version: str | None, plain: str | None, sentence: str
) -> None:
    del installed["onnxruntime-gpu"]
    installed |= {
        name: version
        for name, version in (("onnxruntime-gpu", gpu_version), ("onnxruntime", plain))
        if version is not None
    }
    assert refused().startswith(f"onnxruntime-gpu: {sentence}")


@pytest.mark.parametrize(
    ("problem", "found"),
    [
        (
            "libcudnn.so.9: cannot open shared object file: No such file or directory",
            "libcudnn.so.9 is missing",
        ),
        ("libcublasLt.so.12: cannot open shared object file: …", "libcublasLt.so.12 is missing"),
        ("/opt/x/libonnxruntime_providers_cuda.so: undefined symbol", "the CUDA provider cannot be loaded"),
    ],
)
def test_a_library_that_is_missing_is_named_without_a_path(
    nvml: Nvml, installed: dict[str, str], provider: dict[str, str], problem: str, found: str
) -> None:
    provider["problem"] = problem
    assert refused().startswith(
        f"CUDA libraries: {found}. To install CUDA and cuDNN from PyPI, run `make serve-"
    )
    assert "/opt" not in refused()


def test_every_problem_of_a_host_is_found_at_once(installed: dict[str, str], nvml: Nvml) -> None:
    nvml.fails["init"] = nvml.NVMLError_LibraryNotFound()
    del installed["onnxruntime-gpu"]
    assert [finding.name for finding in gpu.findings()] == ["NVIDIA driver", "onnxruntime-gpu"]
    assert not any(finding.ok for finding in gpu.findings())


@pytest.mark.parametrize(
    "line",
    [
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "Failed to allocate memory for requested buffer of size 128057344",
        "Internal: DeviceError: GPU 0 has too little free memory for a text of 512 tokens.",
    ],
)
def test_a_start_that_ran_out_of_memory_tells_what_is_free(nvml: Nvml, line: str) -> None:
    sentence = gpu.explain_failed_start(f"I0101 loading\nE0101 {line}\nI0101 unloading")
    assert sentence is not None
    assert sentence.startswith(
        "The GPU has too little memory for the models (Tesla T4, 14000 MiB of 15360 MiB"
    )
    assert "nvidia-smi" in sentence
    nvml.fails["init"] = nvml.NVMLError("Unknown Error")
    assert "(its free memory cannot be read" in (gpu.explain_failed_start(line) or "")
    assert gpu.explain_failed_start("E0101 failed to load the model: invalid graph") is None


@pytest.mark.parametrize("behind", [r"\n\nAt:\n  /tmp/models/m/1/device.py(182): _open", " |", ""])
def test_a_start_that_a_device_ended_tells_what_it_said(behind: str) -> None:
    said = "GPU 0 cannot be used: CUDA failure 35: driver version is insufficient."
    log = (
        f"I0101 loading\nE0101 failed to load 'm' version 2: Internal: DeviceError: {said}{behind}\nI0101 end"
    )
    assert gpu.explain_failed_start(log) == f"{said} `tritonflare doctor` checks driver and libraries."


def test_a_start_that_another_error_ended_is_not_put_down_to_a_gpu_that_was_left_out() -> None:
    log = (
        "W0101 GPU 1 has too little free memory for a text of 512 tokens.\n"
        "E0101 Internal: DeviceError: GPU 0 cannot be used: CUDA failure 209: no kernel image.\n"
    )
    assert (gpu.explain_failed_start(log) or "").startswith("GPU 0 cannot be used: CUDA failure 209")


def test_libraries_that_take_too_long_to_load_are_told(
    nvml: Nvml, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_load_provider", LOAD_PROVIDER)
    monkeypatch.setattr(gpu, "_LOAD_PROVIDER", "import time; time.sleep(60)")
    monkeypatch.setattr(gpu, "_LOAD_TIMEOUT_S", 0.2)
    assert refused().startswith("onnxruntime-gpu: its libraries were not loaded within 0.2 s. Try again")


def test_the_provider_is_loaded_in_a_process_of_its_own(
    nvml: Nvml, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a stand-in for the package: the real one is loaded where `serve-gpu.txt` is installed."""
    monkeypatch.setattr(gpu, "_load_provider", LOAD_PROVIDER)
    package = tmp_path / "onnxruntime"
    package.mkdir()
    monkeypatch.setattr(
        gpu, "_LOAD_PROVIDER", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + LOADER
    )
    code = "cuda_version = '12.8'\ndef preload_dlls(directory): print('noise')\n"
    (package / "__init__.py").write_text(code)
    assert refused().startswith(
        "CUDA libraries: the CUDA provider cannot be loaded. To install CUDA and cuDNN"
    )
    (package / "__init__.py").write_text("raise SystemExit(3)")
    assert refused().startswith(
        "onnxruntime-gpu: cannot be loaded (CalledProcessError). To repair it, run `make"
    )


@pytest.mark.skipif(find_spec("pynvml") is None, reason="serve-gpu.txt is not installed here")
def test_the_real_packages_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_load_provider", LOAD_PROVIDER)
    runtime, libraries = [
        found for found in gpu.findings() if found.name in ("onnxruntime-gpu", "CUDA libraries")
    ]
    assert (runtime.ok, libraries.ok) == (True, True)
    assert "for CUDA 12." in runtime.found
    assert "cuDNN 9." in libraries.found

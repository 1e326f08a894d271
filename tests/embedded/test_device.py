"""Where models compute, and how Triton is told."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tritonclient.grpc import model_config_pb2 as pb

from embedded import gpu, server, wheel
from embedded.device import choose_device, link_repository
from embedded.errors import EmbeddedError
from embedded.logs import LogRelay
from embedded.repository import RepositoryModel, check_repository, read_config
from embedded.server import TritonServer
from export.plan import ExportPlan
from export.run import run_export
from tests.support.nvml import install
from tests.support.small_checkpoints import LENIENT, write_checkpoint
from tritonflare.doctor import doctor

FOR_CPU, FOR_CUDA = RepositoryModel("a", "a"), RepositoryModel("b", "b", target="cuda")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    source = write_checkpoint(folder / "mood")
    for name, target in (("@local/mood", "cpu"), ("@local/fast", "cuda")):
        run_export(
            ExportPlan(
                source,
                folder / "models",
                folder / "artefacts",
                timing=None,
                limits=LENIENT,
                name=name,
                target=target,
            )
        )
    return folder / "models"


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    """A model of target cpu, and one of target cuda."""
    return Path(shutil.copytree(exported, tmp_path / "repository"))


@pytest.mark.parametrize(
    ("asked", "models", "device"),
    [
        ("auto", [FOR_CPU], "cpu"),
        ("auto", [FOR_CUDA], "cuda"),
        ("auto", [FOR_CPU, FOR_CUDA], "cuda"),
        ("cpu", [FOR_CPU, FOR_CUDA], "cpu"),
        ("cuda", [FOR_CPU, FOR_CUDA], "cuda"),
    ],
)
def test_auto_is_a_gpu_exactly_where_a_model_was_exported_for_it(
    asked: str, models: list[RepositoryModel], device: str
) -> None:
    assert choose_device(asked, models) == device


def test_a_gpu_for_models_that_cannot_use_it_is_refused() -> None:
    with pytest.raises(
        EmbeddedError, match=r"run `tritonflare export --target cuda`, or leave --device out\.$"
    ):
        choose_device("cuda", [FOR_CPU])


def test_the_target_is_read_with_the_model(repository: Path) -> None:
    targets = {model.name: model.target for model in check_repository(repository)}
    assert targets == {"@local/mood": "cpu", "@local/fast": "cuda"}


def test_on_a_cpu_only_what_asks_for_a_gpu_is_written_anew_and_the_repository_stays(
    repository: Path, tmp_path: Path
) -> None:
    encoder = "local-fast_encoder_fp16"
    file = repository / encoder / "config.pbtxt"
    text = file.read_text().replace("kind: KIND_GPU", "kind: KIND_GPU\n  gpus: [0, 1]")
    assert "gpus" in text
    file.write_text(text)
    before = {file: (file.stat().st_ino, file.read_bytes()) for file in repository.rglob("*.pbtxt")}
    link_repository(repository, tmp_path / "served", "cpu")
    config = read_config(tmp_path / "served" / encoder)
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_CPU, 1, [])
    assert config.parameters["device"].string_value == "cuda"
    served = tmp_path / "served"
    for file in repository.rglob("*"):
        copy = served / file.relative_to(repository)
        if file.is_file():
            assert copy.samefile(file) == (file != repository / encoder / "config.pbtxt")
    assert {file: (file.stat().st_ino, file.read_bytes()) for file in before} == before
    assert check_repository(served) == check_repository(repository)


def test_without_a_change_the_repository_is_linked_as_a_whole(repository: Path, tmp_path: Path) -> None:
    link_repository(repository, tmp_path / "served", "cuda")
    assert (tmp_path / "served").readlink() == repository
    turn = read_config(tmp_path / "served" / "local-fast_encoder_fp16").instance_group[0]
    assert turn.kind == pb.ModelInstanceGroup.KIND_GPU


def test_a_model_of_another_backend_keeps_its_gpu(repository: Path, tmp_path: Path) -> None:
    file = repository / "local-fast_encoder_fp16" / "config.pbtxt"
    file.write_text(file.read_text().replace('backend: "python"', 'backend: "onnxruntime"'))
    link_repository(repository, tmp_path / "served", "cpu")
    assert (tmp_path / "served").readlink() == repository


def test_what_says_where_driver_and_gpus_are_is_passed_on_to_a_gpu_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib64-nvidia")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with_cpu, with_gpu = wheel.environment(), wheel.environment("cuda")
    assert with_gpu["LD_LIBRARY_PATH"] == f"{with_cpu['LD_LIBRARY_PATH']}:/usr/lib64-nvidia"
    assert with_gpu["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in with_cpu
    assert "TRITONFLARE_DEVICE" not in with_gpu


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_that_is_not_there_ends_the_start_before_triton(
    repository: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    nvml = install(monkeypatch)
    nvml.fails["init"] = nvml.NVMLError_LibraryNotFound()
    monkeypatch.setattr(server, "prepare_scratch", lambda *_: pytest.fail("Triton was prepared"))
    with pytest.raises(EmbeddedError, match=r"^NVIDIA driver: not found\. Install"):
        TritonServer(repository, device=asked).start()


def test_a_start_that_ran_out_of_memory_is_explained_and_not_tried_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    monkeypatch.setattr(gpu, "require", lambda: None)
    script = "print('E0101 00:00:00.000000 1 x.cc:1] CUDA failure 2: out of memory')"
    monkeypatch.setattr(TritonServer, "command", lambda *_: [sys.executable, "-c", script])
    with pytest.raises(
        EmbeddedError, match=r"^The GPU has too little memory .* 14000 MiB of 15360 MiB"
    ) as error:
        TritonServer(repository, device="auto").start()
    assert type(error.value) is EmbeddedError  # EndedWhileStarting would be tried again


@pytest.mark.parametrize(("uses_gpu", "level"), [(False, "DEBUG"), (True, "ERROR")])
def test_errors_of_a_gpu_are_logged_where_one_is_used(
    caplog: pytest.LogCaptureFixture, uses_gpu: bool, level: str
) -> None:
    caplog.set_level("DEBUG")
    LogRelay(gpu=uses_gpu).feed("E0101 00:00:00.000000 1 x.cc:1] CUDA failure 2: out of memory")
    assert [record.levelname for record in caplog.records] == [level]


def checked(repository: Path) -> tuple[int, list[str]]:
    done = CliRunner().invoke(doctor, ["--repository", str(repository)])
    return done.exit_code, done.output.splitlines()


def test_the_doctor_asks_for_a_gpu_only_where_a_model_needs_one(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = install(monkeypatch)
    monkeypatch.setenv("GATEWAY_PORT", "0")
    link_repository(repository, tmp_path / "for_cpu", "cpu")
    file = tmp_path / "for_cpu" / "local-fast" / "config.pbtxt"
    text = file.read_text().replace('"cuda"', '"cpu"')
    file.unlink()
    file.write_text(text)
    shown = "ok      GPU: Tesla T4, 14000 MiB of 15360 MiB free"
    status, before = checked(tmp_path / "for_cpu")
    assert (status, shown in before) == (0, True)
    nvml.fails["init"] = nvml.NVMLError_LibraryNotFound()
    none = "ok      GPU: none (NVIDIA driver: not found); models of target cuda cannot run here"
    assert checked(tmp_path / "for_cpu") == (0, [none if line == shown else line for line in before])
    file.write_text(text.replace('"cpu"', '"cuda"'))
    status, needed = checked(tmp_path / "for_cpu")
    assert status == 1
    assert "REMEDY  NVIDIA driver: not found" in needed
    assert [line for line in before if line != shown and line not in needed] == []

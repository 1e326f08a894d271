"""docker/triton/build_plans.py as a subprocess, with stand-ins for trtexec and nvidia-smi."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plans.host import Host
from plans.install import InstallError, Repository
from plans.kit import read_kit

from export.errors import PublishError
from export.repository import exchange
from tests.support.plain_classifier import FALLBACK, Kits, make_kits, plain_model, write_my_kit

ROOT = Path(__file__).parents[2]
STANDINS = Path(__file__).parent / "standins"
FP16, INT8 = "my-model_encoder_tensorrt_fp16", "my-model_encoder_tensorrt_int8"


class Machine:
    """A host whose TensorRT and GPU are stand-ins, and the builder on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for program in ("trtexec", "nvidia-smi"):
            script = folder / program
            # The interpreter of the tests, which has ONNX Runtime; PATH would find another.
            text = (STANDINS / program).read_text().replace("/usr/bin/env python3", sys.executable, 1)
            script.write_text(text)
            script.chmod(0o755)
        self.settings: dict[str, Any] = {
            "version": "v110201] [b2", "gpu": "NVIDIA L4, 8.9", "ms": {"fp16": 2.0, "int8": 1.0},
        }  # fmt: skip

    def run(self, made: Kits, *flags: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "settings.json").write_text(json.dumps(self.settings))
        command = [
            sys.executable, str(ROOT / "docker/triton/build_plans.py"), "--kits", str(made.kits),
            "--repository", str(made.repository), "--cache", str(made.cache), *flags,
        ]  # fmt: skip
        environment = {**os.environ, "PATH": str(self.folder), "STANDIN_TRTEXEC": str(self.folder)}
        return subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, timeout=100
        )

    def calls(self, flag: str) -> list[list[str]]:
        """Command lines with a flag, of all runs so far."""
        log = self.folder / "log.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if any(argument.startswith(flag) for argument in line)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "bin")


@pytest.fixture
def made(tmp_path: Path) -> Kits:
    """Both candidates as good as FP32."""
    return make_kits(tmp_path, fp16=plain_model(half=True), int8=plain_model())


def decisions(made: Kits) -> list[str]:
    summary = json.loads((made.cache / "summary.json").read_text())
    return [entry["decision"] for entry in summary["models"]]


def test_a_faster_int8_inside_the_gate_is_served(machine: Machine, made: Kits) -> None:
    done = machine.run(made)
    assert done.returncode == 0, done.stdout + done.stderr
    assert made.plans() == [INT8]
    assert INT8 in made.ensemble
    encoder = made.repository / INT8
    assert (encoder / "config.pbtxt").read_text().startswith(f'name: "{INT8}"')
    assert (encoder / "warmup" / "ones_16.bin").read_bytes() == b"\1" * 128
    assert decisions(made) == ["passed", "passed", "tensorrt"]
    assert "TensorRT 11.2.1.2 on NVIDIA L4 (compute capability 8.9)." in done.stdout
    assert " texts/s on the length mix." in done.stdout
    assert (made.repository / "my-model_encoder_fp16" / "config.pbtxt").is_file(), "the fallback has gone"


@pytest.mark.parametrize("ms", [2.0, 1.99, 3.0])
def test_int8_that_is_not_faster_is_not_served(machine: Machine, made: Kits, ms: float) -> None:
    machine.settings["ms"]["int8"] = ms
    assert machine.run(made).returncode == 0
    assert made.plans() == [FP16]
    assert "slower" in decisions(made)


def test_an_inaccurate_int8_is_not_served(machine: Machine, tmp_path: Path) -> None:
    made = make_kits(tmp_path, fp16=plain_model(half=True), int8=plain_model(seed=5))
    done = machine.run(made)
    assert made.plans() == [FP16]
    assert "int8: it agrees with FP32 on" in done.stdout
    # One for each of FP16's two lengths: what is refused is not timed.
    assert len(machine.calls("--exportTimes")) == 2


def test_an_inaccurate_fp16_leaves_onnxruntime(machine: Machine, tmp_path: Path) -> None:
    made = make_kits(tmp_path, fp16=plain_model(half=True, flipped=True), int8=plain_model())
    done = machine.run(made)
    assert done.returncode == 0
    assert made.plans() == []
    assert made.ensemble == FALLBACK
    assert decisions(made) == ["refused", "onnxruntime"]
    assert len(machine.calls("--onnx")) == 1, "INT8 was built though FP16 had failed"


def test_a_failed_build_is_explained_and_leaves_onnxruntime(machine: Machine, made: Kits) -> None:
    machine.settings |= {"fail": "fp16", "says": "/Sub: ElementWiseOperation SUB must have same input types."}
    done = machine.run(made)
    assert done.returncode == 0
    assert "must have same input types. (the graph mixes FP16 and FP32" in done.stdout
    assert made.plans() == []
    assert not list(made.cache.glob("*/model.plan"))


def test_a_failed_int8_build_leaves_fp16(machine: Machine, made: Kits) -> None:
    machine.settings |= {"fail": "int8", "says": "out of memory"}
    machine.run(made)
    assert made.plans() == [FP16]


@pytest.mark.parametrize(("flag", "status"), [("--prune", 0), ("--require-gpu", 1)])
def test_without_a_gpu_onnxruntime_serves(machine: Machine, made: Kits, flag: str, status: int) -> None:
    machine.settings["gpu"] = None
    done = machine.run(made, flag)
    assert done.returncode == status
    assert "there is no NVIDIA GPU here" in done.stdout
    assert made.ensemble == FALLBACK
    assert decisions(made) == ["onnxruntime"]


def test_without_trtexec_onnxruntime_serves(machine: Machine, made: Kits) -> None:
    (machine.folder / "trtexec").unlink()
    done = machine.run(made)
    assert done.returncode == 0
    assert "there is no trtexec here" in done.stdout


def test_gpus_of_two_kinds_get_no_plan(machine: Machine, made: Kits) -> None:
    machine.settings["gpu"] = "NVIDIA L4, 8.9\nNVIDIA H100 80GB HBM3, 9.0"
    assert "the GPUs differ" in machine.run(made).stdout
    machine.settings["gpu"] = "NVIDIA L4, 8.9\nNVIDIA L4, 8.9"
    machine.run(made)
    assert made.plans() == [INT8]


def test_a_second_run_builds_and_measures_nothing(machine: Machine, made: Kits) -> None:
    machine.run(made)
    before = len(machine.calls("--"))
    plan = (made.repository / INT8 / "1" / "model.plan").stat()
    done = machine.run(made)
    assert len(machine.calls("--")) == before
    assert "served already" in done.stdout
    assert (made.repository / INT8 / "1" / "model.plan").stat() == plan


def test_a_damaged_cached_plan_is_built_again(machine: Machine, made: Kits) -> None:
    machine.run(made)
    builds = len(machine.calls("--onnx"))
    for plan in made.cache.glob("*/model.plan"):
        plan.write_bytes(plan.read_bytes()[:-1])
    assert machine.run(made).returncode == 0
    assert len(machine.calls("--onnx")) == 2 * builds


@pytest.mark.parametrize(
    "change",
    [{"version": "v110300] [b99"}, {"version": "v110201] [b3"}, {"gpu": "NVIDIA H100 80GB HBM3, 9.0"}],
)
def test_on_another_tensorrt_or_gpu_the_plan_is_built_anew(
    machine: Machine, made: Kits, change: dict[str, str]
) -> None:
    machine.run(made)
    old = (made.repository / INT8 / "1" / "model.plan").read_bytes()
    machine.settings |= change
    done = machine.run(made, "--prune")
    assert decisions(made)[0] == "stale"
    assert "Removed the unused plan" in done.stdout
    assert made.plans() == [INT8]
    assert (made.repository / INT8 / "1" / "model.plan").read_bytes() != old
    assert len(list(made.cache.glob("*/model.plan"))) == 2


@pytest.mark.parametrize("kit_is_there", [True, False])
def test_a_plan_of_another_host_is_taken_out_even_without_its_kit(
    machine: Machine, made: Kits, kit_is_there: bool
) -> None:
    machine.run(made)
    if not kit_is_there:
        shutil.rmtree(made.folder)
    machine.settings["gpu"] = None
    machine.run(made)
    assert made.plans() == []
    assert made.ensemble == FALLBACK


def test_a_new_graph_replaces_the_plan(machine: Machine, made: Kits) -> None:
    machine.run(made)
    write_my_kit(made, fp16=plain_model(half=True), int8=plain_model(seed=5))
    machine.run(made)
    assert decisions(made)[0] == "stale"
    assert made.plans() == [FP16]
    assert FP16 in made.ensemble


def test_what_was_published_since_is_left_alone(machine: Machine, made: Kits) -> None:
    config = made.repository / "my-model" / "config.pbtxt"
    config.write_text("the cpu target\n")
    machine.run(made)
    assert config.read_text() == "the cpu target\n"
    assert decisions(made) == ["skipped"]
    assert made.plans() == []


def test_a_foreign_encoder_is_never_replaced(machine: Machine, made: Kits) -> None:
    theirs = made.repository / INT8 / "config.pbtxt"
    theirs.parent.mkdir()
    theirs.write_text("mine\n")
    done = machine.run(made)
    assert done.returncode == 0
    assert "was not written by this script" in done.stdout
    assert theirs.read_text() == "mine\n"
    assert made.ensemble == FALLBACK


@pytest.mark.parametrize("damage", ["model", "schema", "json"])
def test_a_damaged_kit_is_named_and_nothing_changes(machine: Machine, made: Kits, damage: str) -> None:
    kit = made.folder / "kit.json"
    if damage == "model":
        (made.folder / "fp16" / "model.onnx").unlink()
    elif damage == "schema":
        kit.write_text(json.dumps(json.loads(kit.read_text()) | {"schema": 2}))
    else:
        kit.write_text(kit.read_text()[:-40])
    done = machine.run(made)
    assert done.returncode == 0, "a damaged kit must not keep ONNX Runtime from serving"
    assert "export the model again" in done.stdout
    assert made.ensemble == FALLBACK
    assert machine.run(made, "--require-gpu").returncode == 1


def test_a_killed_build_leaves_nothing_that_counts(machine: Machine, made: Kits) -> None:
    machine.settings["kill_build"] = True
    assert machine.run(made).returncode == -9
    assert list(made.cache.glob("*.part/model.plan")), "the stand-in left no half-written plan"
    assert made.ensemble == FALLBACK
    assert made.plans() == []
    del machine.settings["kill_build"]
    assert machine.run(made).returncode == 0
    assert made.plans() == [INT8]
    assert not list(made.cache.glob("*.part"))


def _step_by_step(made: Kits, action: Callable[[], object]) -> list[tuple[str, list[str]]]:
    """The repository after each rename that ``action`` makes: what a kill there would leave."""
    seen: list[tuple[str, list[str]]] = []
    real_rename, real_replace = Path.rename, Path.replace

    def look() -> None:
        named = [name for name in (FP16, INT8) if name in made.ensemble]
        seen.append((named[0] if named else "fallback", made.plans()))

    def rename(self: Path, target: Path) -> Path:
        result = real_rename(self, target)
        look()
        return result

    def replace(self: Path, target: Path) -> Path:
        result = real_replace(self, target)
        look()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(Path, "replace", replace)
        action()
    return seen


def test_at_every_step_the_named_encoder_is_there_and_whole(made: Kits, tmp_path: Path) -> None:
    host = Host(tmp_path / "trtexec", "11.2.1.2", "NVIDIA L4", "8.9")
    kit = read_kit(made.folder)
    fp16, int8 = kit.candidates
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"a plan")
    repository = Repository(made.repository)

    def actions() -> None:
        repository.install(host, kit, fp16, plan, "1" * 64)
        repository.install(host, kit, fp16, plan, "2" * 64)
        repository.install(host, kit, int8, plan, "3" * 64)
        repository.fall_back(kit.ensemble)

    with repository.changing():
        seen = _step_by_step(made, actions)
    assert len(seen) > 10
    for named, plans in seen:
        assert named == "fallback" or named in plans
        assert all((made.repository / name / "config.pbtxt").is_file() for name in made.plans())
    assert {named for named, _ in seen} == {"fallback", FP16, INT8}
    assert made.ensemble == FALLBACK
    assert sorted(f.name for f in made.repository.parent.iterdir()) == [".repository.lock", "repository"]


def test_a_repository_that_is_a_mount_point_is_explained(made: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        found = list(real(path, **options))
        found[2] += Path(path) == made.repository  # the device
        return os.stat_result(found)

    repository = Repository(made.repository)
    monkeypatch.setattr("plans.install.os.stat", stat)
    with pytest.raises(InstallError, match="mount the folder above"), repository.changing():
        pass


def test_while_an_export_writes_the_repository_nothing_is_installed(machine: Machine, made: Kits) -> None:
    with Repository(made.repository).changing():
        done = machine.run(made)
    assert done.returncode == 2
    assert "an export is writing the repository" in done.stdout
    assert made.ensemble == FALLBACK


def test_the_exporter_and_the_builder_take_the_same_lock(made: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "WAIT_S", 0.3)
    with Repository(made.repository).changing(), pytest.raises(PublishError, match="another export"):
        exchange.replace_repository(made.repository, lambda _: None)


def test_dry_run_prints_the_commands_and_changes_nothing(machine: Machine, made: Kits) -> None:
    done = machine.run(made, "--dry-run")
    assert done.stdout.count("--skipInference") == 2
    assert not made.cache.exists()
    assert not machine.calls("--onnx")


def test_only_the_standard_library_is_needed() -> None:
    command = [sys.executable, "-E", "-S", str(ROOT / "docker/triton/build_plans.py"), "--help"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_a_repository_or_cache_that_cannot_be_used_stops_the_start(machine: Machine, made: Kits) -> None:
    made.cache.write_text("a file where a folder should be")
    done = machine.run(made)
    assert done.returncode == 2
    assert "cannot be written" in done.stdout
    made.cache.unlink()
    shutil.rmtree(made.repository)
    done = machine.run(made)
    assert done.returncode == 2
    assert "there is no model repository" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr

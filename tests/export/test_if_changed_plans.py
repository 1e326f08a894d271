"""An export for TensorRT is skipped with its plan installed, which stays as it is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from plans.host import Host
from plans.install import Repository
from plans.kit import read_kit

from export.plan import ExportPlan
from export.record import unchanged_export
from tests.support.unchanged import exported, plan_in, reason, replace

PLAN_ENCODER = "local-mood_encoder_fp16_plan"


@pytest.fixture(scope="module")
def for_tensorrt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("tensorrt"), "tensorrt")


@pytest.fixture
def with_kit(for_tensorrt: Path, tmp_path: Path) -> ExportPlan:
    shutil.copytree(for_tensorrt, tmp_path, dirs_exist_ok=True)
    return plan_in(tmp_path, "tensorrt")


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def install_plan(plan: ExportPlan, folder: Path) -> None:
    """As docker/triton/build_plans.py does it on a GPU."""
    (folder / "model.plan").write_bytes(b"plan")
    kit = read_kit(plan.artefacts / "local-mood" / "tensorrt")
    repository = Repository(plan.repository)
    with repository.changing():
        host = Host(folder / "trtexec", "11.2.1.2", "NVIDIA L4", "8.9")
        repository.install(host, kit, kit.candidates[0], folder / "model.plan", "key")


def test_an_installed_plan_is_no_damage_and_left_alone(with_kit: ExportPlan, tmp_path: Path) -> None:
    assert unchanged_export(with_kit).version == 1
    install_plan(with_kit, tmp_path)
    before = files(with_kit.repository)
    assert with_kit.repository / PLAN_ENCODER / "1" / "model.plan" in before
    assert unchanged_export(with_kit).version == 1
    assert files(with_kit.repository) == before
    with Repository(with_kit.repository).changing():
        Repository(with_kit.repository).fall_back("local-mood")
    assert unchanged_export(with_kit).version == 1


@pytest.mark.parametrize("damage", [replace, Path.unlink])
@pytest.mark.parametrize(
    "file",
    [
        f"models/{PLAN_ENCODER}/config.pbtxt",
        f"models/{PLAN_ENCODER}/warmup/ones_16.bin",
        "models/local-mood/config.pbtxt",
        "models/local-mood_encoder_fp16/1/model.onnx",
        "artefacts/local-mood/tensorrt/kit.json",
        "artefacts/local-mood/tensorrt/fp16/model.onnx",
        "artefacts/local-mood/tensorrt/samples.json",
    ],
)
def test_damage_beside_an_installed_plan_is_exported_again(
    with_kit: ExportPlan, tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    install_plan(with_kit, tmp_path)
    damage(tmp_path / file)
    assert re.search("left it: (local-mood|tensorrt/)|is not published", reason(with_kit))


def test_an_ensemble_whose_plan_has_gone_is_exported_again(with_kit: ExportPlan, tmp_path: Path) -> None:
    install_plan(with_kit, tmp_path)
    (with_kit.repository / PLAN_ENCODER / "1" / "model.plan").unlink()
    assert "local-mood/config.pbtxt" in reason(with_kit)

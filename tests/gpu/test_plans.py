"""The builder with the real trtexec on a real GPU. Skipped, with the reason, where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from plans.host import NoTensorRT, find_host

from tests.support.plain_classifier import Kits, make_kits, plain_model

SCRIPT = Path(__file__).parents[2] / "docker" / "triton" / "build_plans.py"


@pytest.fixture(scope="module", autouse=True)
def _a_gpu() -> None:
    try:
        find_host()
    except NoTensorRT as error:
        pytest.skip(str(error))


def _run(made: Kits) -> list[dict[str, object]]:
    command = [
        sys.executable, str(SCRIPT), "--kits", str(made.kits), "--repository", str(made.repository),
        "--cache", str(made.cache), "--require-gpu",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, object]] = json.loads((made.cache / "summary.json").read_text())["models"]
    return found


@pytest.mark.timeout(1300)
def test_an_fp16_plan_is_built_agrees_and_is_served(tmp_path: Path) -> None:
    made = make_kits(tmp_path, fp16=plain_model(half=True))
    decisions = _run(made)
    assert [entry["decision"] for entry in decisions] == ["passed", "tensorrt"], decisions
    assert made.plans() == ["my-model_encoder_tensorrt_fp16"]
    assert list(made.cache.glob("timing-*.cache"))

    again = _run(made)
    assert again[0]["cached"] is True


@pytest.mark.timeout(1300)
def test_a_plan_that_disagrees_is_not_served(tmp_path: Path) -> None:
    made = make_kits(tmp_path, fp16=plain_model(half=True, flipped=True))
    assert [entry["decision"] for entry in _run(made)] == ["refused", "onnxruntime"]
    assert made.plans() == []

"""The command in any folder: where its defaults lie, and the wheel outside of a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.bundled import bundled_repository
from tests.support.servers import ROOT, running

PLACES = "from tritonflare import paths; print(paths.REPOSITORY, paths.TOKENS, paths.BATCHES)"


def places(folder: Path, **environment: str) -> list[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRITONFLARE_")}
    command = [sys.executable, "-c", PLACES]
    return subprocess.run(
        command, cwd=folder, env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel holds, in a folder to put on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools would leave its build folder in the checkout
    for package in ("bulk", "embedded", "export", "gateway", "loadtest", "tritonflare"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "NOTICE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder / "dist", source], cwd=folder, check=True)
    (wheel,) = (folder / "dist").iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def test_the_defaults_are_those_of_the_checkout_in_every_folder(tmp_path: Path) -> None:
    assert places(ROOT) == ["model_repository", ".state/tokens", ".state/batches"]
    assert places(tmp_path) == [
        f"{ROOT}/model_repository",
        f"{ROOT}/.state/tokens",
        f"{ROOT}/.state/batches",
    ]


def test_a_home_of_your_own_comes_first(tmp_path: Path) -> None:
    assert places(ROOT, TRITONFLARE_HOME=str(tmp_path)) == [
        f"{tmp_path}/model_repository",
        f"{tmp_path}/.state/tokens",
        f"{tmp_path}/.state/batches",
    ]


@pytest.mark.timeout(300)
def test_the_wheel_serves_an_exported_repository_outside_of_a_checkout(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = places(tmp_path, PYTHONPATH=str(installed), XDG_DATA_HOME=str(tmp_path / "data"))
    assert found == [
        f"{tmp_path}/data/tritonflare/{place}"
        for place in ("model_repository", ".state/tokens", ".state/batches")
    ]
    (tmp_path / "model_repository").symlink_to(bundled_repository())
    with running("serve", "--port", "0", PYTHONPATH=str(installed), GATEWAY_API_TOKENS="*:token") as served:
        answer = httpx.post(
            f"{served.url}/client/v4/accounts/a/ai/run/@cf/huggingface/distilbert-sst-2-int8",
            headers={"authorization": "Bearer token"},
            json={"text": "good"},
        )
        assert answer.json()["success"]
        served.stop()
    assert str(ROOT) not in served.output

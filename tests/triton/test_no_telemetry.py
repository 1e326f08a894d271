"""ONNX Runtime sends events to its maker by default; it starts with a file in the user's cache folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from export.repository.write import ENCODER_SOURCES, JOINED_SOURCES
from tests.support.servers import ACCOUNT, TOKEN, finished, running
from tests.support.small_checkpoints import write_checkpoint
from tests.support.triton_steps import copy_step
from tests.triton.conftest import INT8

pytestmark = pytest.mark.needs_triton


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of a user who has not switched it off."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    # Where it finds a build server, it sends nothing either.
    monkeypatch.delenv("CI", raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def evidence(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "onnxruntime" in path.name and "models" not in path.parts]


def test_the_evidence_is_there_where_nothing_prevents_it(cache: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", "import onnxruntime"], check=True, timeout=60)
    assert evidence(tmp_path)


def test_no_event_is_sent_while_texts_are_classified(
    cache: Path, tmp_path: Path, int8_repository: Path
) -> None:
    tokens = {"GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}"}
    with running("serve", "--port", "0", "--repository", str(int8_repository), **tokens) as program:
        url = f"{program.url}/client/v4/accounts/{ACCOUNT}/ai/run/{INT8}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.post(url, headers=headers, json={"text": "a"}, timeout=30).status_code == 200
    assert evidence(tmp_path) == []


def test_no_event_is_sent_by_an_export(cache: Path, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "mood")
    folders = ("--repository", str(tmp_path / "served"), "--artefacts", str(tmp_path / "artefacts"))
    finished("export", str(source), "--quick", *folders, cwd=tmp_path, timeout=180)
    assert (tmp_path / "artefacts").exists()
    assert evidence(tmp_path) == []


@pytest.mark.parametrize("sources", [ENCODER_SOURCES, JOINED_SOURCES], ids=["encoder", "joined"])
def test_the_model_switches_it_off_itself_for_servers_that_others_start(
    cache: Path, tmp_path: Path, sources: dict[str, str]
) -> None:
    copy_step(sources, tmp_path / "step" / "1")
    (tmp_path / "step" / "triton_python_backend_utils.py").touch()
    load = "import importlib, sys; importlib.import_module('1.model'); assert 'onnxruntime' in sys.modules"
    subprocess.run([sys.executable, "-c", load], cwd=tmp_path / "step", check=True, timeout=60)
    assert evidence(tmp_path) == []

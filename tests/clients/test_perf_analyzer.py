"""NVIDIA's perf_analyzer, unmodified: it reads the model's description and measures."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support.clients.checks import MODEL
from tests.support.clients.inference_clients import PATH_SAFE, PERF_ANALYZER, Target, require_clients

WITHOUT_NODE = True
WHEEL_LIBRARIES = Path(sysconfig.get_path("platlib")) / "nvidia_pytriton.libs"
"""Triton's wheel has the two libraries that most machines lack, under names with a hash."""


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    for name in ("libb64.so.0d", "libcudart.so.12"):
        stem = name.partition(".")[0]
        (found,) = WHEEL_LIBRARIES.glob(f"{stem}-*")
        (folder / name).symlink_to(found)
    return folder


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_it_measures(tmp_path: Path, libraries: Path, inference_target: Target, protocol: str) -> None:
    require_clients()
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps({"data": [{"TEXT": [text]} for text in inference_target.texts]}))
    report = tmp_path / "report.csv"
    address = inference_target.grpc if protocol == "grpc" else inference_target.http
    done = subprocess.run(
        [
            str(PERF_ANALYZER),
            *("-m", MODEL if protocol == "grpc" else PATH_SAFE),
            *("-i", protocol, "-u", address),
            *("-H", f"authorization:Bearer {inference_target.token}"),
            *("--input-data", str(texts), "-b", "2", "--concurrency-range", "4"),
            # Two windows, and any spread will do: this asks whether it can measure, not how fast we are.
            *("--measurement-interval", "700", "--max-trials", "3", "--stability-percentage", "999"),
            *("-f", str(report)),
        ],
        env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with report.open() as lines:
        (row,) = csv.DictReader(lines)
    assert float(row["Inferences/Second"]) > 1

"""The target cuda inside the real Triton on a CPU: all but the provider's name, and the way to the cores."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedded import wheel
from embedded.errors import EmbeddedError
from embedded.server import TritonServer
from export.checkpoint import load_checkpoint
from export.plan import ExportPlan
from export.reference import logits as reference
from export.repository.inventory import Published, read_inventory, verify_repository
from export.run import run_export
from tests.support.cuda_steps import CUDA_FAILURE, has_provider, where_no_gpu_is
from tests.support.small_checkpoints import LENIENT, write_checkpoint
from tests.triton.test_layouts import Direct, read

pytestmark = pytest.mark.needs_triton

TEXTS = [
    "a", "b c", "", "d e f g h", "a b c d e f g h i j k", "q " * 30, "z " * 50, "a " * 100, "x y z", "r s t",
]  # fmt: skip
BOUND = 3e-2  # of FP16's logits, whose random weights spread them further than a trained model's
NEIGHBOURS = 1e-3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model for the target cuda, beside the checkpoint that it was made of."""
    folder = tmp_path_factory.mktemp("cuda")
    plan = ExportPlan(
        write_checkpoint(folder / "mood", labels=2), folder / "models", folder / "artefacts", target="cuda",
        limits=LENIENT, timing=None, all_precisions=False, group_tokens=1024,
    )  # fmt: skip
    result = run_export(plan)
    assert (result.artefact, result.model.precision, result.model.target) == ("fp16", "fp16", "cuda")
    assert verify_repository(plan.repository) == []
    return folder


def without_gpu(exported: Path, to: Path) -> Published:
    """A copy whose encoder Triton starts without a GPU."""
    shutil.copytree(exported / "models", to)
    (model,) = read_inventory(to)
    replace_once(to / model.encoder / "config.pbtxt", "KIND_GPU", "KIND_CPU")
    return model


def as_if_for_cuda(exported: Path, to: Path) -> Path:
    """The same, whose program runs for CUDA whatever the environment says; returns the program."""
    model = without_gpu(exported, to)
    program = to / model.encoder / "1" / "device.py"
    replace_once(program, 'DEVICE = "TRITONFLARE_DEVICE"', 'DEVICE = "TRITONFLARE_NOTHING"')
    return program


def replace_once(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.unlink()  # weights are hard links, and so may this be one day
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module", params=["provider exchanged", "on the cores"])
def direct(
    request: pytest.FixtureRequest, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Direct]:
    """The program for a GPU with the CPU's provider, or the graph for a GPU in the program for a CPU."""
    repository = tmp_path_factory.mktemp("served") / "models"
    if request.param == "on the cores":
        without_gpu(exported, repository)
    else:
        program = as_if_for_cuda(exported, repository)
        replace_once(program, 'PROVIDER = "CUDAExecutionProvider"', 'PROVIDER = "CPUExecutionProvider"')
    given: Any = wheel.environment
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheel, "environment", lambda *device: given(*device) | {"TRITONFLARE_DEVICE": "cpu"})
        with TritonServer(repository) as server:
            yield Direct(server, read_inventory(repository)[0])


@pytest.fixture(scope="module")
def wanted(exported: Path) -> Any:
    """Logits FP32 [texts, 2] of the reference, which is computed without any graph."""
    checkpoint = load_checkpoint(exported / "mood")
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    return np.array([reference(checkpoint.encoder, tokenizer.encode(text).ids) for text in TEXTS])


async def test_answers_are_the_references_alone_and_beside_any_others(direct: Direct, wanted: Any) -> None:
    texts = [text.encode() for text in TEXTS]
    alone = np.concatenate([read((await direct.ask([text]))[0])[0] for text in texts])
    assert np.abs(alone - wanted).max() < BOUND
    order = np.random.default_rng(7).permutation(len(texts) * 12) % len(texts)
    calls = [order[start : start + size] for start, size in ((0, 40), (40, 1), (41, 7), (48, 64), (112, 8))]
    found = await direct.ask(*([texts[place] for place in call] for call in calls))
    for call, response in zip(calls, found, strict=True):
        logits, _ = read(response)
        assert np.abs(_positive(logits) - _positive(alone[call])).max() <= NEIGHBOURS


def _positive(logits: Any) -> Any:
    return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))


async def test_a_call_that_is_not_utf8_fails_alone(direct: Direct) -> None:
    failed, fine = await direct.ask([b"\xff\xfe"], [b"a"])
    assert "TEXT is not UTF-8" in str(failed)
    assert len(read(fine)[0]) == 1


@where_no_gpu_is
def test_without_cuda_triton_does_not_start_and_says_why(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_if_for_cuda(exported, tmp_path / "models")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EmbeddedError) as refusal, TritonServer(tmp_path / "models"):
        pass
    said = CUDA_FAILURE if has_provider() else "ONNX Runtime found no CUDA: it needs onnxruntime-gpu"
    assert said in f"{refusal.value} {caplog.text}"

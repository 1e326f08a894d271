"""``tritonflare serve --device`` with the real tritonserver."""

from __future__ import annotations

import ctypes
import re
import shutil
import time
from pathlib import Path

import httpx
import pytest

from embedded import gpu
from embedded.errors import EmbeddedError
from embedded.server import TritonServer
from tests.support.bundled import bundled_repository, export_bundled
from tests.support.servers import ACCOUNT, finished, running, wait_until
from tests.triton.conftest import INT8

pytestmark = pytest.mark.needs_triton


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, exported for a GPU."""
    return export_bundled(tmp_path_factory.mktemp("cuda"), "fp16", target="cuda")


def scores(url: str) -> list[dict[str, float | str]]:
    answer = httpx.post(
        f"{url}/client/v4/accounts/{ACCOUNT}/ai/run/{INT8}",
        headers={"Authorization": "Bearer x"},
        json={"text": "This pizza is great!"},
        timeout=30,
    )
    result: list[dict[str, float | str]] = answer.json()["result"]
    return result


def test_a_model_for_a_gpu_answers_on_the_cpu_where_that_is_asked_for(repository: Path) -> None:
    before = {file: file.read_bytes() for file in repository.rglob("config.pbtxt")}
    with running(
        "serve", "--port", "0", "--repository", str(repository), "--device", "cpu", GATEWAY_API_TOKENS="*:x"
    ) as program:
        assert wait_until(lambda: "great!" in program.output, 5)
        assert [entry["label"] for entry in scores(program.url)] == ["NEGATIVE", "POSITIVE"]
        warned = [line for line in program.output.splitlines() if "exported for a GPU" in line]
        assert len(warned) == 1
        assert f"{INT8} is exported for a GPU and computed on the CPU: slow, and for trying only" in warned[0]
        assert program.stop() == 0
    assert {file: file.read_bytes() for file in before} == before


def test_a_model_for_a_cpu_is_served_without_a_word_of_gpus() -> None:
    repository = str(bundled_repository())
    with running(
        "serve", "--port", "0", "--repository", repository, "--device", "cpu", GATEWAY_API_TOKENS="*:x"
    ) as program:
        assert wait_until(lambda: "great!" in program.output, 5)
        assert "GPU" not in program.output
        assert program.stop() == 0


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(_has_driver(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("device", [(), ("--device", "auto"), ("--device", "cuda")])
def test_without_a_driver_nothing_starts_and_one_sentence_tells_what_to_do(
    repository: Path, device: tuple[str, ...]
) -> None:
    began = time.monotonic()
    status, output = finished(
        "serve", "--port", "0", "--repository", str(repository), *device, GATEWAY_API_TOKENS="*:x"
    )
    assert status == 2
    assert output.splitlines()[-1] == (
        "tritonflare: NVIDIA driver: not found. Install NVIDIA's driver, 525 or newer, or take --device cpu, "
        "to try it slowly without a GPU."
    )
    assert "tritonflare.triton" not in output
    assert "Traceback" not in output
    assert time.monotonic() - began < 60


def test_a_gpu_is_not_taken_for_models_that_cannot_use_it() -> None:
    status, output = finished(
        "serve",
        "--port",
        "0",
        "--repository",
        str(bundled_repository()),
        "--device",
        "cuda",
        GATEWAY_API_TOKENS="*:x",
    )
    assert status == 2
    assert "No model of this repository was exported for a GPU; run `" in output.splitlines()[-1]


def test_a_device_that_refuses_in_triton_ends_the_start_with_its_sentence(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where CUDA fails in spite of a driver; here neither the driver nor Triton is asked for a GPU."""
    monkeypatch.setattr(gpu, "require", lambda: None)
    models = Path(shutil.copytree(repository, tmp_path / "models"))
    (file,) = models.glob("*_encoder_fp16/config.pbtxt")
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace("KIND_GPU", "KIND_CPU"))
    with pytest.raises(EmbeddedError) as error:
        TritonServer(models, device="cuda").start()
    said, _, remedy = str(error.value).partition(". `")
    assert remedy == "tritonflare doctor` checks driver and libraries."
    assert re.fullmatch(r"GPU 0 cannot be used: .*|ONNX Runtime found no CUDA: .*", said)

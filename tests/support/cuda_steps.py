"""The encoder's program for a GPU, run outside Triton and without one: only the provider's name differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from export.triton_models import device
from export.triton_models.encoder_threads import EncoderThreads
from export.triton_models.text_queue import Call
from tests.support.small_checkpoints import write_checkpoint
from tests.support.triton_steps import FakeRequest, fake_pb_utils, strings

LABELS = 3
CPU_PROVIDER = "CPUExecutionProvider"
CUDA_FAILURE = "CUDA failure "
"""How CUDA's provider begins what it says where it is installed and no GPU can be used."""
Rows = Sequence[Sequence[int]]
where_no_gpu_is = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU, which works")


def has_provider() -> bool:
    """Whether this is the environment of `make serve-gpu`, whose ONNX Runtime has CUDA's provider."""
    return "CUDAExecutionProvider" in ort.get_available_providers()


def write_graph(folder: Path, precision: str = "fp32", family: str = "distilbert") -> Path:
    """A graph for a GPU, of a small random checkpoint with three labels."""
    source = write_checkpoint(folder / "m", labels=LABELS, family=family)
    graph = build_graph(load_checkpoint(source).encoder, precision, "fused")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return folder / "model.onnx"


def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CudaDevice ask ONNX Runtime for the provider that is here."""
    monkeypatch.setattr(device.CudaDevice, "PROVIDER", CPU_PROVIDER)


def cuda_config(gpus: Sequence[int] = (0,), **parameters: str) -> dict[str, Any]:
    """As Triton hands it over; it fills in the GPUs."""
    given = {
        "device": "cuda",
        "group_texts": "64",
        "group_tokens": "2048",
        "pad_multiple": "8",
        "max_tokens": "64",
    }
    return {
        "instance_group": [{"count": 1, "kind": "KIND_GPU", "gpus": list(gpus)}],
        "parameters": strings(given | parameters),
    }


class Encoder:
    """An encoder's threads, asked for the logits of rows of token ids."""

    def __init__(self, model: Path, config: dict[str, Any], number: int = 0) -> None:
        self.pb_utils = fake_pb_utils()
        args = {"model_name": "step", "model_instance_device_id": str(number)}
        self.threads = EncoderThreads(self.pb_utils, args, config, model)
        self.device: Any = self.threads.device
        self.labels: int = self.threads.device.session.get_outputs()[0].shape[1]
        self.threads.padding.due = float("inf")  # what is counted stays to be read

    @property
    def warnings(self) -> list[str]:
        warnings: list[str] = self.pb_utils.warnings
        return warnings

    def send(self, *calls: Rows, types: Rows | None = None) -> list[FakeRequest]:
        """Queue calls at once; each is answered later."""
        requests = [FakeRequest({}) for _ in calls]
        self.threads.add(
            [
                Call(request.get_response_sender(), rows, self.labels, types)
                for request, rows in zip(requests, calls, strict=True)
            ]
        )
        return requests

    def ask(self, *calls: Rows, types: Rows | None = None) -> list[Any]:
        """The answers to calls that are queued at once."""
        return [request.answers.get(timeout=600)[0] for request in self.send(*calls, types=types)]

    def logits(self, *calls: Rows) -> Any:
        """Logits FP32 [N, labels] of all rows of all calls."""
        found = self.ask(*calls)
        assert [response.error for response in found] == [None] * len(calls)
        return np.concatenate([response.tensors["logits"] for response in found])

    def close(self) -> None:
        self.threads.close()


def rows_of(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [[2, *rng.integers(4, 50, length - 2).tolist(), 3] for length in lengths]


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Encoder]:
    on_the_cpu(monkeypatch)
    encoder = Encoder(write_graph(tmp_path), cuda_config())
    yield encoder
    encoder.close()

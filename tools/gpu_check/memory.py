"""What happens to texts when the memory of the device runs out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2_grpc

from embedded.server import TritonServer
from export.artefact import Logits
from export.evaluation.gate import DEFAULT_LIMITS
from export.repository.inventory import Published
from export.scores import probabilities
from export.spec import MAX_BATCH_SIZE, PROBLEM_TYPES
from loadtest.bench.grpc_client import GrpcTarget
from loadtest.bench.null_repository import link_model
from loadtest.inference import infer_request
from tools.gpu_check.answers import exact_texts, mixed_texts
from tools.gpu_check.ballast import ballast
from tools.gpu_check.job import CheckFailed, Job
from tools.gpu_check.models import served_models
from tritonflare.bench_stack import triton_target

_PRECISION = "fp16"
_DEVICE = Path(__file__).with_name("short_device.py")
_CALLS = 8
_OPTIONS = [("grpc.enable_http_proxy", 0)]


def check(job: Job) -> str:
    """Let memory run out under load: groups are halved, and every text is answered, and rightly.

    On a GPU other allocations take what is free. On a CPU the encoder's device fails for large groups.
    """
    settings = job.settings
    model = served_models(settings)[_PRECISION]
    folder = settings.work / "short_of_memory"
    count = short_of_memory(settings.repository, model.published, folder)
    if settings.device == "cuda":
        long = exact_texts(model, 512, 16)
        batches = [[long[(call + place) % 16] for place in range(MAX_BATCH_SIZE)] for call in range(_CALLS)]
    else:
        texts = mixed_texts(model, 24)
        batches = [texts[first::_CALLS] for first in range(_CALLS)]
    with TritonServer(folder, ready_timeout_s=job.left_s, device=settings.device) as server:
        caller = _Caller(triton_target(server), model.published.ensemble)
        job.steps.step("asking every text alone")
        alone = {text: caller.ask([text])[0] for batch in batches for text in dict.fromkeys(batch)}
        before = _size(count)
        job.steps.step("asking all of them while memory is short")
        with ballast(settings.device) as taken, ThreadPoolExecutor(_CALLS) as pool:
            found = list(pool.map(caller.ask, batches))
        times = _size(count) - before
    wanted = np.array([alone[text] for batch in batches for text in batch])
    largest = _largest_shift(np.concatenate(found), wanted)
    texts_asked = len(wanted)
    job.figures(texts=texts_asked, times=times, largest=largest, taken_mb=round(taken / 1e6))
    if not times:
        raise CheckFailed("Memory did not run out, so nothing is known.")
    limit = DEFAULT_LIMITS[_PRECISION].neighbours
    if largest > limit:
        raise CheckFailed(f"A score moved by {largest:.1e}, allowed {limit:g}.")
    return f"Memory ran out {times} times, and all {texts_asked} texts were answered as alone."


def short_of_memory(repository: Path, model: Published, folder: Path) -> Path:
    """Fill ``folder`` with the model, in whose encoder memory runs out; returns the file that counts it."""
    others = [name for name in model.folders if name != model.encoder]
    link_model(repository, others, folder)
    shutil.copytree(repository / model.encoder, folder / model.encoder, copy_function=_link)
    version = model.weights_file(folder).parent
    (version / "device.py").rename(version / "real_device.py")
    shutil.copyfile(_DEVICE, version / "device.py")
    return version / "out_of_memory"


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


class _Caller:
    """Asks Triton itself for the logits of texts."""

    def __init__(self, target: GrpcTarget, model: str) -> None:
        self._target = target
        self._model = model

    def ask(self, texts: Sequence[str]) -> Logits:
        """Logits FP32 [texts, labels].

        Raises:
            CheckFailed: the call failed, so that texts are lost.
        """
        request = infer_request(self._model, texts, ("logits",))
        with grpc.insecure_channel(self._target.address, options=_OPTIONS) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            try:
                # No deadline: it would travel, and what is cancelled inside Triton 2.51 may end it. A call
                # that hangs is ended with the check, whose time is limited.
                answer = infer(request, metadata=self._target.metadata)
            except grpc.RpcError as error:
                raise CheckFailed(f"{len(texts)} texts were lost: {error.code().name}.") from error
        return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(len(texts), -1)


def _largest_shift(logits: Logits, wanted: Logits) -> float:
    """The largest |Δp|."""
    given, alone = (probabilities(each, PROBLEM_TYPES[0]) for each in (logits, wanted))
    return float(np.abs(given - alone).max())

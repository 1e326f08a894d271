"""trtexec's command lines, and what it prints and writes.

TensorRT 11 knows strongly typed networks only and has no precision flags left; 10 must be
asked for strong typing. Everything else is spelled alike in both.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plans.host import Host
from plans.kit import Batch, Profile

BUILD_SECONDS = 3600
RUN_SECONDS = 300
WARM_UP_MS = 500
TIMED_SECONDS = 3
_HINTS = (
    ("Version tag does not match", "the plan is of another TensorRT version; it has to be built again"),
    ("engine plan file is not compatible", "the plan is of another TensorRT version or GPU"),
    ("generated on a different", "the plan is of another GPU model"),
    ("must have same input types", "the graph mixes FP16 and FP32; export the model again"),
    ("No importer registered for op", "the graph has an operator that TensorRT does not know"),
    ("out of memory", "the GPU's memory is full; stop what else runs on it"),
    ("insufficient memory", "the GPU's memory is full; stop what else runs on it"),
    ("CUDA driver version is insufficient", "the driver is too old for this image"),
    ("No space left on device", "the disk is full"),
)  # fmt: skip


class TrtexecError(Exception):
    """trtexec failed; one sentence with its error and, for known failures, the remedy."""


def build_flags(host: Host, profiles: Sequence[Profile], flags: Sequence[str]) -> list[str]:
    """All flags that decide what the plan is: part of its key, so no path is among them."""
    shapes: list[str] = []
    for index, profile in enumerate(profiles):
        # trtexec reads the three shapes that follow their --profile: keep the order.
        shapes += [f"--profile={index}"]
        shapes += [
            f"--{which}Shapes={_shapes(getattr(profile, which), profile.inputs)}"
            for which in ("min", "opt", "max")
        ]
    strong = ["--stronglyTyped"] if host.major == 10 else []
    return [*strong, *shapes, *flags, "--skipInference"]


def build_command(host: Host, onnx: Path, plan: Path, timing_cache: Path, flags: Sequence[str]) -> list[str]:
    """Build ``plan`` from ``onnx``; the timing cache makes the next build of the same GPU faster."""
    paths = [f"--onnx={onnx}", f"--saveEngine={plan}", f"--timingCacheFile={timing_cache}"]
    return [str(host.trtexec), *paths, *flags]


def answer_command(host: Host, plan: Path, profile: int, batch: Batch, samples: Path, out: Path) -> list[str]:
    """Run a batch once and write its logits to ``out`` as JSON."""
    return [
        *_run_command(host, plan, profile, batch, samples),
        "--warmUp=0", "--duration=0", "--iterations=1", "--avgRuns=1", f"--exportOutput={out}",
    ]  # fmt: skip


def timing_command(host: Host, plan: Path, profile: int, batch: Batch, samples: Path, out: Path) -> list[str]:
    """Run a batch for TIMED_SECONDS and write every run's times to ``out`` as JSON."""
    return [
        *_run_command(host, plan, profile, batch, samples),
        f"--warmUp={WARM_UP_MS}", f"--duration={TIMED_SECONDS}", "--avgRuns=100", f"--exportTimes={out}",
    ]  # fmt: skip


def run(command: Sequence[str], seconds: int) -> None:
    """Run trtexec.

    Raises:
        TrtexecError: it failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise TrtexecError(f"trtexec did not end within {seconds} seconds.") from error
    except OSError as error:
        raise TrtexecError(f"trtexec cannot be run ({error.strerror}).") from error
    if done.returncode != 0:
        raise TrtexecError(explain(done.stdout + "\n" + done.stderr, done.returncode))


def explain(output: str, status: int) -> str:
    """One sentence about a failed run: the first error line, and a hint where it is a known one."""
    errors = [line for line in output.splitlines() if "[E]" in line]
    said = re.sub(r"^.*\[E\]\s*", "", errors[0]).strip() if errors else "no error line"
    hint = next((hint for text, hint in _HINTS if text.lower() in output.lower()), "")
    return f"trtexec ended with status {status}: {said[:300]}" + (f" ({hint})." if hint else ".")


def read_logits(file: Path) -> list[list[float]]:
    """Logits [rows, labels] from --exportOutput; values that are no numbers come out as nan.

    Raises:
        TrtexecError: the file is not what trtexec writes.
    """
    try:
        # C++ prints nan and inf in a way that is no JSON.
        text = re.sub(r"-?\b(nan|inf)\b", "NaN", file.read_text(encoding="utf-8"), flags=re.IGNORECASE)
        tensor = next(entry for entry in json.loads(text) if entry["name"] == "logits")
        rows, labels = map(int, tensor["dimensions"].split("x"))
        values = [float(value) for value in tensor["values"]]
        if len(values) != rows * labels:
            raise ValueError(f"{len(values)} values for {rows}x{labels}")
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise TrtexecError(f"trtexec's output cannot be read ({error}).") from error
    return [values[row * labels : (row + 1) * labels] for row in range(rows)]


def read_median_ms(file: Path) -> float:
    """Median GPU time of one run in milliseconds from --exportTimes, warm-up left out.

    Raises:
        TrtexecError: the file is not what trtexec writes.
    """
    try:
        trace = json.loads(file.read_text(encoding="utf-8"))
        times = [float(run["computeMs"]) for run in trace if float(run["startComputeMs"]) >= WARM_UP_MS]
        median = statistics.median(times)
        if not median > 0:
            raise ValueError(f"a median of {median} ms")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrtexecError(f"trtexec's times cannot be read ({error}).") from error
    return median


def _run_command(host: Host, plan: Path, profile: int, batch: Batch, samples: Path) -> list[str]:
    # Real inputs always: trtexec's random ids would lie outside of the vocabulary.
    inputs = ",".join(f"{name}:{samples / f'{batch.file}.{name}.bin'}" for name in batch.inputs)
    return [
        str(host.trtexec), f"--loadEngine={plan}", f"--useProfile={profile}",
        f"--shapes={_shapes(batch.shape, batch.inputs)}", f"--loadInputs={inputs}",
    ]  # fmt: skip


def _shapes(shape: tuple[int, int], inputs: Sequence[str]) -> str:
    return ",".join(f"{name}:{shape[0]}x{shape[1]}" for name in inputs)

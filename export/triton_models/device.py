"""What the encoder runs on: ONNX Runtime on the CPU's cores, or on one GPU.

A device says how many threads work for it, which texts they compute together, and what counts as out of
memory. ``initialize`` opens one for each instance of the model.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock, local
from typing import Any, Protocol

import numpy as np

# Read at its import; otherwise it sends events and an identifier of the machine to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from .pinned_memory import PinnedMemory
from .text_queue import CPU, GpuGroupPolicy, GroupPolicy

DEVICE = "TRITONFLARE_DEVICE"
"""The environment variable that may take a model for a GPU to the CPU."""
Arrays = dict[str, Any]


class Device(Protocol):
    """Where the graph runs.

    threads: how many work for it. runs_at_once: how many of them compute at the same time. name: what a log
    calls it. is_gpu: whether memory can run out, and the device be lost, while the process lives. session:
    ONNX Runtime with the graph.
    """

    name: str
    session: Any
    threads: int
    runs_at_once: int
    policy: GroupPolicy
    inputs: tuple[str, ...]
    is_gpu: bool

    def zeros(self, count: int, width: int) -> Arrays:
        """Inputs INT64 [count, width] of zeros; they are the calling thread's until its next call."""

    def run(self, inputs: Arrays, *, shrink: bool = False) -> Any:
        """Logits FP32 [count, labels]; they are the calling thread's until its next call.

        ``shrink`` lets go of memory that is kept for later runs and not in use.
        """

    def out_of_memory(self, problem: BaseException) -> bool:
        """Whether the error says that a smaller group may fit."""

    def failed(self, problem: BaseException) -> bool:
        """Whether the error is the device's own, and no text's."""

    def close(self) -> None:
        """Let go of what outlives a run; no thread runs any more."""


def cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its affinity, or its container's CPU quota if that is less.

    A fraction of a core counts as a whole one. ``cgroups`` is where cgroup v2 or v1 is mounted.
    """
    allowed = len(os.sched_getaffinity(0))
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            limit, period = (int(word) for file in files for word in (cgroups / file).read_text().split())
        except (OSError, ValueError):  # the other version of cgroups, or "max": no limit
            continue
        if limit > 0 and period > 0:  # v1 writes -1 for no limit
            allowed = min(allowed, -(-limit // period))
    return allowed


class CpuDevice:
    """One thread for each core, each with a run of its own; instances share the cores out between them."""

    name = "the CPU"
    policy = CPU
    is_gpu = False

    def __init__(self, model: Path, instances: int = 1) -> None:
        """Load the graph."""
        self.threads = self.runs_at_once = max(1, cores() // instances)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # One for all threads: each runs on its own, and the weights are in memory and in the caches once.
        self.session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(each.name for each in self.session.get_inputs())

    def zeros(self, count: int, width: int) -> Arrays:
        """New arrays."""
        return {name: np.zeros((count, width), np.int64) for name in self.inputs}

    def run(self, inputs: Arrays, *, shrink: bool = False) -> Any:
        """Logits FP32 [count, labels], in an array of their own."""
        (logits,) = self.session.run(["logits"], inputs)
        return logits

    def out_of_memory(self, problem: BaseException) -> bool:
        """Never: where a text of 512 tokens fits, so do all groups."""
        return False

    def failed(self, problem: BaseException) -> bool:
        """Never: it is this process that would fail."""
        return False

    def close(self) -> None:
        """Nothing to do."""


class DeviceError(Exception):
    """The device cannot be used; the message is a sentence for the operator, without paths."""


class NoCudaError(DeviceError):
    """ONNX Runtime has no CUDA provider here, whatever the GPU."""


class _Buffers:
    """What one thread has for itself: page-locked memory that the GPU reads and writes, and the binding."""

    def __init__(
        self, binding: Any, inputs: Sequence[str], numbers: int, logits: tuple[int, int], memory: PinnedMemory
    ) -> None:
        self.binding = binding
        self.inputs = {name: memory.array(numbers, np.int64) for name in inputs}
        # All at once: pages stay locked until the end of the process.
        self.logits = memory.array(logits[0] * logits[1], np.float32).reshape(logits)


class CudaDevice:
    """One GPU: a group is being computed while another thread prepares the next one.

    Attributes:
        session: ONNX Runtime on the GPU; both threads run it, in turn.
    """

    PROVIDER = "CUDAExecutionProvider"
    threads = 2
    runs_at_once = 1
    is_gpu = True

    def __init__(
        self,
        model: Path,
        number: int,
        policy: GpuGroupPolicy,
        warn: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Load the graph onto the GPU.

        Args:
            model: the graph.
            number: of the GPU, as CUDA counts those that this process sees.
            policy: which texts are computed together.
            warn: is told what an operator should know while it works.

        Raises:
            NoCudaError: ONNX Runtime has no CUDA provider here.
            DeviceError: the GPU cannot be used.
        """
        self.name = f"GPU {number}"
        self.policy: GroupPolicy = policy
        # A text that is longer than the budget is a group by itself.
        self._room = max(policy.tokens, policy.longest)
        self._longest, self._most = policy.longest, max(1, policy.texts)
        self._warn = warn
        self._on_gpu = self.PROVIDER == "CUDAExecutionProvider"
        self.session = self._open(model, number)
        self.inputs = tuple(each.name for each in self.session.get_inputs())
        self.labels = self.session.get_outputs()[0].shape[1]
        self.memory = PinnedMemory(number if self._on_gpu else None)
        self.turn = Lock()
        self.own = local()
        self.shrinking: Any = ort.RunOptions()
        arena = f"gpu:{number}" if self._on_gpu else "cpu:0"
        self.shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)

    def _open(self, model: Path, number: int) -> Any:
        # The libraries of the nvidia-… packages lie where the loader does not look.
        ort.preload_dlls(directory="")
        options = {
            "device_id": str(number),
            # Doubling, which is the default, would take memory that other processes on the GPU may need.
            "arena_extend_strategy": "kSameAsRequested",
            # TF32 has ten bits of a mantissa: FP32 is to be as exact as on the CPU, where it was judged.
            "use_tf32": "0",
            # Adds up the squares of FP16 in FP32, as the CPU does, on which the export judged the answers.
            "enable_skip_layer_norm_strict_mode": "1",
        }
        provider = (self.PROVIDER, options) if self._on_gpu else self.PROVIDER
        settings = ort.SessionOptions()
        # The GPU computes; a pool of threads would only wait for work, and keep the cores busy with it.
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        # A pattern asks for one block for each shape that was seen twice; shapes are many, and blocks stay.
        settings.enable_mem_pattern = False
        try:
            # Without the fall-back, which would print one line and answer on the CPU.
            session = ort.InferenceSession(str(model), settings, providers=[provider], enable_fallback=0)
        except Exception as problem:
            raise DeviceError(f"{self.name} cannot be used: {reason(problem)}.") from None
        if session.get_providers()[0] != self.PROVIDER:
            raise NoCudaError(
                "ONNX Runtime found no CUDA: it needs onnxruntime-gpu, an NVIDIA driver, and the libraries "
                "of CUDA and cuDNN."
            )
        return session

    def warm_up(self) -> str:
        """Compute the largest group twice, so that its memory is there for all later ones.

        Returns:
            What an operator should know; empty if all is well.

        Raises:
            DeviceError: there is no memory for a single text, or the graph does not run.
        """
        width, said = self._longest, []
        fitting = wanted = max(1, min(self.policy.texts, self.policy.tokens // width))
        while True:
            try:
                inputs = self.zeros(fitting, width)
                inputs["attention_mask"].fill(1)
                self.run(inputs, shrink=fitting < wanted)
                # The first run chooses algorithms; the second one needs what all later ones need.
                self.run(inputs)
                break
            except Exception as problem:
                if not self.out_of_memory(problem):
                    raise DeviceError(f"{self.name} cannot be used: {reason(problem)}.") from None
            if fitting == 1:
                raise DeviceError(f"{self.name} has too little free memory for a text of {width} tokens.")
            fitting //= 2
        if fitting < wanted:
            said.append(f"has memory for {fitting} texts of {width} tokens at once, not for {wanted}")
        if self.memory.problem:
            said.append(f"copies from ordinary memory, which is slower ({self.memory.problem})")
        return f"{self.name} {' and '.join(said)}." if said else ""

    def zeros(self, count: int, width: int) -> Arrays:
        """Parts of this thread's page-locked buffers."""
        found = {}
        for name, buffer in self._buffers().inputs.items():
            found[name] = buffer[: count * width].reshape(count, width)
            found[name].fill(0)
        return found

    def run(self, inputs: Arrays, *, shrink: bool = False) -> Any:
        """Logits FP32 [count, labels] in this thread's buffer; waits until no other run is under way."""
        buffers = self._buffers()
        binding = buffers.binding
        (count, _) = inputs["input_ids"].shape
        logits = buffers.logits[:count]
        for name in self.inputs:
            tensor = inputs[name]
            binding.bind_input(name, "cpu", 0, np.int64, tensor.shape, tensor.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        with self.turn:
            if not (shrink and self._shrunk(binding)):
                self.session.run_with_iobinding(binding, None)
            # A run ends with that by default; the answers must not depend on a default.
            binding.synchronize_outputs()
        return logits

    def _shrunk(self, binding: Any) -> bool:
        """Whether the run was done with the option that gives memory back; a refused one costs no text."""
        if self.shrinking is None:
            return False
        try:
            self.session.run_with_iobinding(binding, self.shrinking)
        except Exception as problem:
            if self.out_of_memory(problem) or self.failed(problem):
                raise
            self.shrinking = None
            self._warn(f"{self.name} keeps memory that ran short: ONNX Runtime cannot give it back")
            return False
        return True

    def out_of_memory(self, problem: BaseException) -> bool:
        """As CUDA, cuBLAS, and ONNX Runtime's arena say it; none of them has a type of error for it."""
        return isinstance(problem, MemoryError) or bool(_OUT_OF_MEMORY.search(str(problem)))

    def failed(self, problem: BaseException) -> bool:
        """As CUDA and its libraries say it; most of their errors leave this process without the GPU."""
        return not self.out_of_memory(problem) and bool(_CUDA_FAILURE.search(str(problem)))

    def close(self) -> None:
        """Unlock the pages of the buffers."""
        self.memory.close()

    def _buffers(self) -> _Buffers:
        if not hasattr(self.own, "buffers"):
            self.own.buffers = _Buffers(
                self.session.io_binding(), self.inputs, self._room, (self._most, self.labels), self.memory
            )
        found: _Buffers = self.own.buffers
        return found


_OUT_OF_MEMORY = re.compile(
    # The last one is how cuBLAS says that there is no memory for its workspace.
    r"out of memory|Failed to allocate memory|is smaller than requested bytes|bad_alloc"
    r"|_ALLOC(?:ATION)?_FAILED|CUBLAS_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)
_CUDA_FAILURE = re.compile(r"\b(CUDA|CUDNN|CUBLAS) (?:failure|error)\s*\d*:? ?[\w ,.'-]*")


def reason(problem: BaseException) -> str:
    """What CUDA says, without the paths and names of hosts around it; else the type of the error."""
    found = _CUDA_FAILURE.search(str(problem))
    return found[0].strip(" .,") if found else type(problem).__name__


def open_device(
    args: Mapping[str, str], config: Mapping[str, Any], model: Path, warn: Callable[[str], None]
) -> Device:
    """The device of one instance.

    Args:
        args: what Triton gives to ``initialize``.
        config: the model's configuration; its parameter ``device`` may be ``cuda``.
        model: the graph.
        warn: is told what an operator should know.

    Raises:
        DeviceError: the model is for a GPU, and none can be used; the CPU is never taken in its place.
    """
    parameters = {key: each["string_value"] for key, each in config.get("parameters", {}).items()}
    if wanted_device(parameters) == "cpu":
        return CpuDevice(model, sum(group["count"] for group in config["instance_group"]))
    policy = GpuGroupPolicy(
        texts=int(parameters["group_texts"]),
        tokens=int(parameters["group_tokens"]),
        padding=int(parameters["group_tokens"]) // 16,
        multiple=int(parameters["pad_multiple"]),
        longest=int(parameters["max_tokens"]),
    )
    own = int(args["model_instance_device_id"])
    failures = []
    for number in _gpus(own, config):
        try:
            device = CudaDevice(model, number, policy, warn)
            said = device.warm_up()
        except NoCudaError:
            raise
        except DeviceError as failure:
            failures.append(failure)
            warn(str(failure))
            continue
        if failures:
            warn(f"GPU {own} is left out: what was to run there runs on {device.name} as well.")
        if said:
            warn(said)
        return device
    raise failures[0]


def _gpus(own: int, config: Mapping[str, Any]) -> list[int]:
    """The instance's own GPU, then the others that Triton gave to the model, beginning with the next one."""
    others = {int(number) for group in config["instance_group"] for number in group.get("gpus") or ()}
    return [own, *sorted(others - {own}, key=lambda number: (number < own, number))]


def wanted_device(parameters: Mapping[str, str]) -> str:
    """``cpu`` or ``cuda``.

    The environment may take a model for a GPU to the CPU. It cannot take a model for the CPU to a GPU: its
    graph is not made for one, and beside a model for a GPU it stays where it is.

    Raises:
        DeviceError: either names another device.
    """
    own = parameters.get("device", "cpu")
    forced = os.environ.get(DEVICE) or own
    for name in (own, forced):
        if name not in ("cpu", "cuda"):
            raise DeviceError(f"{name!r} is no device; known are cpu and cuda.")
    return "cpu" if own == "cpu" else forced

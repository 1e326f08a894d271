"""The encoder on the CPU: ONNX Runtime, on one thread for each core, over the texts of all calls.

What Triton hands over goes into one queue, text by text, and each thread takes from it, so that the
texts of a call are spread over the cores before they are grouped, and no core waits for another's
batch to end. A response leaves when its last text is done.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

# Read at its import; otherwise it sends events and an identifier of the machine to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from .text_queue import Call, Text, TextQueue


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


class Padding:
    """Tells Triton's metrics port how many tokens were read and how many computed for them, padding included.

    Counting costs nothing; telling is a message to another process, so it is done once in a while, after
    the answers. What arrived after the last report is reported with the next group.
    """

    EVERY_S = 1.0

    def __init__(self, pb_utils: Any, model: str) -> None:
        """Register two counters; where Triton has no metrics, texts are classified all the same."""
        self.read = self.computed = 0
        self.due = 0.0
        self.counters: list[Any] = []
        self.families: list[Any] = []
        with suppress(Exception):
            kind = pb_utils.MetricFamily.COUNTER
            # A counter lives as long as its family.
            self.families = [
                pb_utils.MetricFamily(name=f"tritonflare_encoder_{name}_total", description=text, kind=kind)
                for name, text in (
                    ("tokens", "Tokens of the texts that the encoder ran on, after truncation."),
                    ("computed_tokens", "Tokens that it computed for them, padding included."),
                )
            ]
            self.counters = [family.Metric(labels={"model": model}) for family in self.families]

    def close(self) -> None:
        """Let go of the counters: one that outlives the backend's own objects ends the process by SIGSEGV."""
        self.counters.clear()
        self.families.clear()

    def add(self, group: list[Text]) -> None:
        """Count a group; not safe for threads by itself."""
        self.read += sum(text[0] for text in group)
        self.computed += len(group) * group[-1][0]

    def tell(self, lock: Any) -> None:
        """Tell what was counted since the last time, if that is long enough ago."""
        now = time.monotonic()
        if now < self.due:
            return
        with lock:
            self.due = now + self.EVERY_S
            counts, self.read, self.computed = (self.read, self.computed), 0, 0
        # The encoder's thread must survive an error in a metric.
        with suppress(Exception):
            for counter, count in zip(self.counters, counts):  # noqa: B905 (one for each, or none)
                counter.increment(count)


class EncoderThreads:
    """A thread for each core, which answer calls."""

    def __init__(self, pb_utils: Any, args: dict[str, Any], config: dict[str, Any], model: Path) -> None:
        """Load the graph and start the threads; instances share the cores out between them.

        Args:
            pb_utils: Triton's module.
            args: what Triton gives to ``initialize``.
            config: the model's configuration.
            model: the graph.
        """
        self.pb_utils = pb_utils
        instances = sum(group["count"] for group in config["instance_group"])
        count = max(1, cores() // instances)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # One for all threads: each runs on its own, and the weights are in memory and in the caches once.
        self.session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.token_types = any(each.name == "token_type_ids" for each in self.session.get_inputs())
        self.queue = TextQueue()
        self.padding = Padding(pb_utils, args.get("model_name", ""))
        self.lock = Lock()
        self.idle: list[Any] = []
        """What each idle thread waits for; the one that worked last is woken first: its cache is warm."""
        self.stopping = False
        self.threads = [Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def add(self, calls: Sequence[Call]) -> None:
        """Queue all texts of all calls; each call is answered by the thread that ends it."""
        with self.lock:
            for call in calls:
                self.queue.add(call)
            woken = [self.idle.pop() for _ in range(min(len(self.idle), len(self.queue)))]
        for wake in woken:
            wake.release()
        for call in calls:
            if not call.rows:  # no thread would ever end it
                call.problem = "no texts"
                self._answer(call)

    def close(self) -> None:
        """End the threads; Triton has waited for the answers before."""
        with self.lock:
            self.stopping = True
            woken, self.idle = self.idle, []
        for wake in woken:
            wake.release()
        for thread in self.threads:
            thread.join()
        self.padding.close()

    def _work(self) -> None:
        wake = Lock()
        wake.acquire()
        while True:
            with self.lock:
                if self.stopping:
                    return
                # What waits is shared out first: a core must not take what another could begin with.
                share = -(-len(self.queue) // len(self.threads))
                group = self.queue.take(share) if self.queue else []
                if group:
                    self.padding.add(group)
                else:
                    self.idle.append(wake)
            if not group:
                wake.acquire()
                continue
            for call in self._ended(group, self._run(group)):
                self._answer(call)
            self.padding.tell(self.lock)

    def _run(self, group: list[Text]) -> list[Any]:
        """Logits of each text, or None where it failed; a group that fails is run text by text."""
        width = group[-1][0]
        try:
            ids = np.zeros((len(group), width), np.int64)
            mask = np.zeros((len(group), width), np.int64)
            for line, (length, _, place, call) in enumerate(group):
                ids[line, :length] = call.rows[place]
                mask[line, :length] = 1
            inputs = {"input_ids": ids, "attention_mask": mask}
            if self.token_types:
                inputs["token_type_ids"] = self._types(group, width)
            (logits,) = self.session.run(["logits"], inputs)
        except Exception as problem:
            if len(group) > 1:
                return [self._run([text])[0] for text in group]
            # Only the name: the words may hold paths of this machine, and the caller sees them.
            group[0][-1].problem = type(problem).__name__
            return [None]
        return list(logits)

    def _types(self, group: list[Text], width: int) -> Any:
        types = np.zeros((len(group), width), np.int64)
        for line, (length, _, place, call) in enumerate(group):
            types[line, :length] = call.types[place] if call.types else 0
        return types

    def _ended(self, group: list[Text], logits: list[Any]) -> list[Call]:
        """Hand the logits to their calls; return the calls that wait for no other text."""
        ended = []
        with self.lock:
            for (_, _, place, call), row in zip(group, logits):  # noqa: B905 (one for each)
                if row is not None:
                    call.logits[place] = row
                call.left -= 1
                if call.left == 0:
                    ended.append(call)
        return ended

    def _answer(self, call: Call) -> None:
        """Send the response; the thread must survive an error in it."""
        problem = call.problem
        if problem is None:
            try:
                tensors = [self.pb_utils.Tensor("logits", call.logits)]
                if call.counts is not None:
                    tensors.append(self.pb_utils.Tensor("token_count", call.counts))
                self._send(call, self.pb_utils.InferenceResponse(output_tensors=tensors))
            except Exception as failure:
                problem = type(failure).__name__  # such as no room left in shared memory
        if problem is not None:
            # A second failure leaves the caller to the deadline.
            with suppress(Exception):
                error = self.pb_utils.TritonError(f"inference failed: {problem}")
                self._send(call, self.pb_utils.InferenceResponse(error=error))

    def _send(self, call: Call, response: Any) -> None:
        call.sender.send(response, flags=self.pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

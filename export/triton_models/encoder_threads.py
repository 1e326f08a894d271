"""The encoder: threads that run ONNX Runtime on a device over the texts of all calls.

What Triton hands over goes into one queue, text by text, and each thread takes from it, so that the
texts of a call are spread over the cores before they are grouped, and no core waits for another's
batch to end. On a GPU one thread's group is computed while another thread prepares its own. A response
leaves when its last text is done.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from .device import Device, open_device
from .text_queue import Call, Text, TextQueue

OUT_OF_MEMORY = "out of memory"
LOST_AFTER = 4
"""After so many calls in a row that failed with an error of the GPU, this process cannot use it any more."""
SHORT_AFTER = 32
"""The same for want of memory, which another process may have taken for a while: each took 0.1 s to try."""
ALONE_TRIES = 3
"""How often a text is run alone for which memory runs out: another process may give some back."""
PAUSE_S = 0.05
"""Between these tries."""
WARN_EVERY_S = 60.0


class Padding:
    """Tells Triton's metrics port how many tokens were read and how many computed for them, padding included.

    Of a device that can run out of memory it also tells how many groups were halved for that.

    Counting costs nothing; telling is a message to another process, so it is done once in a while, after
    the answers. What arrived after the last report is reported with the next group.
    """

    EVERY_S = 1.0

    def __init__(self, pb_utils: Any, model: str, *, halves: bool) -> None:
        """Register the counters; where Triton has no metrics, texts are classified all the same."""
        self.read = self.computed = self.halved = 0
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
                    ("halved_groups", "Groups of texts that were halved because memory ran out."),
                )[: 3 if halves else 2]
            ]
            self.counters = [family.Metric(labels={"model": model}) for family in self.families]

    def close(self) -> None:
        """Let go of the counters: one that outlives the backend's own objects ends the process by SIGSEGV."""
        self.counters.clear()
        self.families.clear()

    def add(self, group: list[Text], width: int) -> None:
        """Count a group that is padded to ``width``; not safe for threads by itself."""
        self.read += sum(text[0] for text in group)
        self.computed += len(group) * width

    def tell(self, lock: Any) -> None:
        """Tell what was counted since the last time, if that is long enough ago."""
        now = time.monotonic()
        if now < self.due:
            return
        with lock:
            self.due = now + self.EVERY_S
            counts = self.read, self.computed, self.halved
            self.read = self.computed = self.halved = 0
        # The encoder's thread must survive an error in a metric.
        with suppress(Exception):
            for counter, count in zip(self.counters, counts):  # noqa: B905 (the first of them, or none)
                counter.increment(count)


class EncoderThreads:
    """The threads of a device, which answer calls."""

    def __init__(self, pb_utils: Any, args: dict[str, Any], config: dict[str, Any], model: Path) -> None:
        """Open the device and start its threads.

        Args:
            pb_utils: Triton's module.
            args: what Triton gives to ``initialize``.
            config: the model's configuration.
            model: the graph.

        Raises:
            DeviceError: the model is for a GPU that cannot be used.
        """
        self.pb_utils = pb_utils
        self.device: Device = open_device(args, config, model, self._warn)
        self.token_types = "token_type_ids" in self.device.inputs
        self.queue = TextQueue(self.device.policy)
        self.padding = Padding(pb_utils, args.get("model_name", ""), halves=self.device.is_gpu)
        self.lock = Lock()
        self.idle: list[Any] = []
        """What each idle thread waits for; the one that worked last is woken first: its cache is warm."""
        self.warn_due = 0.0
        self.failed_calls: list[Call] = []
        """Those that have failed with an error of the device since the last run that did not."""
        self.stopping = False
        self.threads = [Thread(target=self._work, daemon=True) for _ in range(self.device.threads)]
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
        self.device.close()
        self.padding.close()

    def _work(self) -> None:
        wake = Lock()
        wake.acquire()
        while True:
            with self.lock:
                if self.stopping:
                    return
                # What waits is shared out first: a core must not take what another could begin with.
                share = -(-len(self.queue) // self.device.runs_at_once)
                group = self.queue.take(share) if self.queue else []
                if group:
                    self.padding.add(group, self.device.policy.width(group[-1][0]))
                else:
                    self.idle.append(wake)
            if not group:
                wake.acquire()
                continue
            self._run(group)
            for call in self._ended(group):
                self._answer(call)
            self.padding.tell(self.lock)

    def _run(self, group: list[Text], tries: int = 1) -> None:
        """Compute the logits of each text, or note what its call failed of."""
        failure: Exception | None = None
        try:
            logits = self._logits(group, shrink=tries > 1)
        except Exception as problem:
            failure = problem
        if failure is not None:
            self._run_again(group, failure, tries)
            return
        self.failed_calls = []
        # At once, because the device's next run may write over them.
        for (_, _, place, call), row in zip(group, logits):  # noqa: B905 (one for each)
            call.logits[place] = row

    def _run_again(self, group: list[Text], failure: Exception, tries: int) -> None:
        """Run a group in halves if memory ran out, else text by text; a text alone fails in the end."""
        short = self.device.out_of_memory(failure)
        half = len(group) // 2
        if half and short:
            self._count_halved(group)
            self._run(group[:half], tries=2)
            self._run(group[half:], tries=2)
        elif half:
            for text in group:
                self._run([text])
        elif short and tries < ALONE_TRIES:
            time.sleep(PAUSE_S)
            self._run(group, tries + 1)
        else:
            # Only the name: the words may hold paths of this machine, and the caller sees them.
            group[0][-1].problem = OUT_OF_MEMORY if short else type(failure).__name__
            if short or self.device.failed(failure):
                self._count_failed(group[0][-1], SHORT_AFTER if short else LOST_AFTER)

    def _count_failed(self, call: Call, most: int) -> None:
        """End this process when its GPU is lost: the next one goes without it, or has it anew.

        Calls are counted and not texts, because one call may hold many of the kind that fails. Libraries also
        report a GPU that is lost as a lack of memory.
        """
        failed = self.failed_calls
        if call not in failed:
            failed.append(call)
        if len(failed) >= most:
            self._warn(f"{self.device.name} is lost: {len(failed)} calls in a row have failed; starting anew")
            os._exit(1)

    def _count_halved(self, group: list[Text]) -> None:
        now = time.monotonic()
        with self.lock:
            self.padding.halved += 1
            said = now < self.warn_due
            self.warn_due = self.warn_due if said else now + WARN_EVERY_S
        if not said:
            width = self.device.policy.width(group[-1][0])
            self._warn(
                f"{self.device.name} ran out of memory for {len(group)} texts of {width} tokens; they run in "
                "halves"
            )

    def _warn(self, words: str) -> None:
        with suppress(Exception):  # an older backend has no logger, and a thread must survive it
            self.pb_utils.Logger.log_warn(words)

    def _logits(self, group: list[Text], *, shrink: bool) -> Any:
        """Logits [texts, labels] of a group; the shortest text comes first."""
        inputs = self.device.zeros(len(group), self.device.policy.width(group[-1][0]))
        ids, mask, types = inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids")
        for line, (length, _, place, call) in enumerate(group):
            ids[line, :length] = call.rows[place]
            mask[line, :length] = 1
            if types is not None and call.types:
                types[line, :length] = call.types[place]
        return self.device.run(inputs, shrink=shrink)

    def _ended(self, group: list[Text]) -> list[Call]:
        """The calls that wait for no other text."""
        ended = []
        with self.lock:
            for *_, call in group:
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

"""Encoder step on the CPU: input_ids, attention_mask INT64 [n, S] → logits FP32 [n, labels].

A model of pairs may read token_type_ids INT64 [n, S] as well; its configuration then names them.

Runs ONNX Runtime in Triton's python backend, on one thread for each core. What Triton hands
over goes into one queue, text by text, and each thread takes from it, so that the
texts of a call are spread over the cores before they are grouped, and no core waits for another's
batch to end. A response leaves when its last text is done.
"""

import json
import os
import time
from bisect import bisect_left, insort
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

# Read at its import; otherwise it sends events and an identifier of the machine to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

GROUP_TEXTS = 16
GROUP_TOKENS = 256
"""Most computed tokens of a group: from about there on, a larger one is no faster a token."""
LONG_TOKENS = GROUP_TOKENS // 2
"""Longer texts are always alone in a group, and take by far the longest."""
LONG_EVERY = 4
"""While both wait, every so many groups one is of a long text: each costs as much as dozens of short ones."""
PADDING = 4
"""Most padding, in tokens, that one more text may add: a run by itself costs as much as about seven."""


def joins(count: int, width: int, length: int) -> bool:
    """Whether a text of ``length`` tokens may join ``count`` texts that are padded to ``width``."""
    grown = max(width, length)
    padding = width - length if grown == width else count * (grown - width)
    return count < GROUP_TEXTS and padding <= PADDING and (count + 1) * grown <= GROUP_TOKENS


def length_groups(lengths: list[int]) -> list[list[int]]:
    """Indices in groups of like length; all of them are at hand, so the longest comes first."""
    groups: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if groups and joins(len(groups[-1]), width, lengths[index]):
            groups[-1].append(index)
        else:
            groups.append([index])
            width = lengths[index]
    return groups


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


class Call:
    """A request of Triton: its texts run in any order and group, and its answer leaves as one."""

    def __init__(self, sender: Any, rows: list[Any], labels: int, types: list[Any] | None = None) -> None:
        """Take the response sender, and the token ids and types of each text, without padding."""
        self.sender = sender
        self.rows = rows
        self.types = types
        self.logits = np.empty((len(rows), labels), np.float32)
        self.left = len(rows)
        self.problem: str | None = None


Text = tuple[int, int, int, Call]
"""Length in tokens, order of arrival, place in its call, the call."""


class TextQueue:
    """Texts that wait, by length and by age; not safe for threads by itself."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_length: list[Text] = []
        self._by_age: tuple[deque[Text], deque[Text]] = (deque(), deque())
        """Short ones and long ones."""
        self._arrived = self._taken = 0

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, call: Call) -> None:
        """Add all texts of ``call``."""
        for place, row in enumerate(call.rows):
            text = (len(row), self._arrived, place, call)
            self._arrived += 1
            insort(self._by_length, text)
            self._by_age[len(row) > LONG_TOKENS].append(text)

    def take(self, limit: int) -> list[Text]:
        """Remove a text and up to ``limit`` - 1 others of like length; the shortest comes first.

        The text is the oldest of the short ones or, in its turn or if there are none, of the long ones.
        """
        texts = self._by_length
        first = self._oldest()
        last = first + 1
        while last - first < limit:
            count, width = last - first, texts[last - 1][0]
            # The padding that each neighbour costs: a shorter one pads itself, a longer one all others.
            neighbours = []
            if first:
                neighbours.append((width - texts[first - 1][0], first - 1))
            if last < len(texts):
                neighbours.append((count * (texts[last][0] - width), last))
            fitting = [near for near in neighbours if joins(count, width, texts[near[1]][0])]
            if not fitting:
                break
            if min(fitting)[1] == last:
                last += 1
            else:
                first -= 1
        taken = texts[first:last]
        del texts[first:last]
        return taken

    def _oldest(self) -> int:
        """Where the oldest text stands; older ones that a group has taken are forgotten on the way."""
        self._taken += 1
        short, long = self._by_age
        for ages in (long, short) if self._taken % LONG_EVERY == 0 else (short, long):
            while ages:
                oldest = ages.popleft()
                at = bisect_left(self._by_length, oldest)
                if at < len(self._by_length) and self._by_length[at] is oldest:
                    return at
        raise IndexError("no text waits")


def _rows(values: Any, lengths: list[int]) -> list[Any]:
    """The tokens of each text: copies, as Triton takes the memory back when ``execute`` returns."""
    return [row[:length].copy() for row, length in zip(values, lengths)]  # noqa: B905 (one shape)


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


class TritonPythonModel:
    """Triton's python backend calls ``initialize`` once per instance and ``execute`` per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph, and start a thread for each core; instances share the cores out between them."""
        # Only Triton has this module, and the export imports length_groups from this file.
        import triton_python_backend_utils as pb_utils

        self.pb_utils = pb_utils
        config = json.loads(args["model_config"])
        self.labels = config["output"][0]["dims"][0]
        self.token_types = any(each["name"] == "token_type_ids" for each in config.get("input", ()))
        instances = sum(group["count"] for group in config["instance_group"])
        count = max(1, cores() // instances)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = str(Path(__file__).with_name("model.onnx"))
        # One for all threads: each runs on its own, and the weights are in memory and in the caches once.
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.queue = TextQueue()
        self.padding = Padding(pb_utils, args.get("model_name", ""))
        self.lock = Lock()
        self.idle: list[Any] = []
        """What each idle thread waits for; the one that worked last is woken first: its cache is warm."""
        self.stopping = False
        self.threads = [Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Queue all texts of all requests; each request is answered by the thread that ends it."""
        tensor = self.pb_utils.get_input_tensor_by_name
        calls = []
        for request in requests:
            ids = tensor(request, "input_ids").as_numpy()
            lengths = tensor(request, "attention_mask").as_numpy().sum(axis=1).tolist()
            rows = _rows(ids, lengths)
            types = None
            if self.token_types:
                types = _rows(tensor(request, "token_type_ids").as_numpy(), lengths)
            calls.append(Call(request.get_response_sender(), rows, self.labels, types))
        with self.lock:
            for call in calls:
                self.queue.add(call)
            woken = [self.idle.pop() for _ in range(min(len(self.idle), len(self.queue)))]
        for wake in woken:
            wake.release()

    def finalize(self) -> None:
        """End the threads; Triton has waited for the answers before."""
        with self.lock:
            self.stopping = True
            woken, self.idle = self.idle, []
        for wake in woken:
            wake.release()
        for thread in self.threads:
            thread.join()

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
                tensor = self.pb_utils.Tensor("logits", call.logits)
                self._send(call, self.pb_utils.InferenceResponse(output_tensors=[tensor]))
            except Exception as failure:
                problem = type(failure).__name__  # such as no room left in shared memory
        if problem is not None:
            # A second failure leaves the caller to the deadline.
            with suppress(Exception):
                error = self.pb_utils.TritonError(f"inference failed: {problem}")
                self._send(call, self.pb_utils.InferenceResponse(error=error))

    def _send(self, call: Call, response: Any) -> None:
        call.sender.send(response, flags=self.pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

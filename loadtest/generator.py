"""Sends calls and records what becomes of them: in a closed loop, or at set times (gevent)."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool

from loadtest.arrivals import arrivals
from loadtest.checks import OK, References, Scores
from loadtest.golden import compare, is_bundled, read_golden
from loadtest.options import LoadOptions
from loadtest.protocols.base import ServingProtocol
from loadtest.protocols.grpc import GrpcProtocol
from loadtest.protocols.http import HttpProtocol
from loadtest.record import Record
from loadtest.reference import check_host, read_references, write_references
from loadtest.traffic import PlannedRequest, Traffic, parse_traffic, read_texts

_log = logging.getLogger(__name__)
_PROTOCOLS: dict[str, Callable[[LoadOptions, str, str], ServingProtocol]] = {
    "http": HttpProtocol,
    "grpc": GrpcProtocol,
}
_UNSENT = "not sent"
_REST_S = 1.0
_LONG_S = 0.1
"""A pause that the end of the run must not wait for."""


class AnswerError(Exception):
    """What locust's own tables show of a call that went wrong."""


class Run:
    """One run in this process: what to ask, what to expect, and what happened."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._scores: dict[str, Scores] = {}
        self.generators = 0
        """Processes that send the open loop together; 0 until the load starts."""
        self.truth = ""
        """What the answers are held against."""
        self.record = Record()
        self.stopping = Event()
        """Set when the run ends early: nothing new is sent, and what is under way is waited for."""
        self._under_load = False
        self._began = 0.0
        self._token = os.environ.get("TOKEN", "")
        self._shared: dict[str, Any] = {}
        self._traffic: Traffic
        self.protocol: ServingProtocol
        if not self._token:
            raise SystemExit("Set TOKEN to an API token of the server: make loadtest TOKEN=…")

    @property
    def options(self) -> LoadOptions:
        """The master's options reach its workers only with the start of the load."""
        return LoadOptions.of(self._environment.parsed_options)

    @property
    def host(self) -> str:
        """What was given as ``--host``."""
        return str(self._environment.host or "")

    @property
    def all_finished(self) -> bool:
        """Whether each generator has sent everything and has every answer."""
        return 0 < self.generators <= self.record.facts["finished"]

    def prepare(self) -> None:
        """Ask each text alone, or read what was answered earlier.

        Raises:
            NoReferenceError: there is no usable answer.
        """
        check_host(self.host)
        self.protocol = self._make_protocol()
        self.protocol.prepare()
        self._shared = self.protocol.shared()
        options, texts = self.options, self._make_traffic(0).texts
        if options.reference is not None:
            found = read_references(options.reference, texts)
            self._scores = {text: self.protocol.as_carried(scores) for text, scores in found.items()}
            self.truth = f"answers in {options.reference.name}"
            return
        _log.info("asking %d texts alone", len(texts))
        self._scores = self.protocol.classify_sequentially(texts)
        options.output.mkdir(parents=True, exist_ok=True)
        write_references(self._scores, options.model, options.output / "references.json")
        self.truth = f"the server's own answers; {self._golden()}"

    def _golden(self) -> str:
        """How the answers to the golden texts agree, where the model is the one that they are of.

        Raises:
            NoReferenceError: they do not agree, or there are none.
        """
        options, verify = self.options, not self.options.insecure
        where = (self.host, options.account, options.model)
        if not is_bundled(*where, self._token, options.timeout, verify):
            return "not the bundled model, so there is no reference for their correctness"
        golden = read_golden(options.golden)
        return compare(golden, self.protocol.classify_sequentially(list(golden)))

    def plan(self) -> dict[str, Any]:
        """What the workers need besides the options."""
        return {"scores": self._scores, "generators": self.generators, "shared": self._shared}

    def follow(self, plan: dict[str, Any]) -> None:
        """Take the master's plan."""
        self._scores, self.generators, self._shared = plan["scores"], plan["generators"], plan["shared"]

    def begin(self, place: int) -> None:
        """Start the clock of worker ``place``."""
        options = self.options
        self.protocol = self._make_protocol()
        self.protocol.follow(self._shared)
        self._traffic = self._make_traffic(options.seed + place)
        self._references = References(self._scores, options.tolerance)
        self.seed = options.seed + place
        self.restart(under_load=options.loop == "closed")

    def restart(self, *, under_load: bool) -> None:
        """Set the clock to 0; before the load proper, the capacity is found."""
        self._under_load = under_load
        self._began = time.perf_counter()

    def stop_sending(self) -> None:
        """End the run early; how long the load had lasted goes into the record."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        if self._began:  # not so on the master
            self.record.facts["stopped"] += 1
            self.record.facts["stopped_ms"] += round(1000 * self.now()) if self._under_load else 0

    @property
    def stopped_after_s(self) -> float | None:
        """Seconds under load of a run that was ended early, as a mean over its generators; None of others."""
        if not self.stopping.is_set():
            return None
        return self.record.facts["stopped_ms"] / max(1, self.record.facts["stopped"]) / 1000

    def wait_until(self, time_s: float) -> bool:
        """Let the answers have their turn, until ``time_s`` if that is still to come; whether to go on."""
        left_s = time_s - self.now()
        if left_s > _LONG_S:
            self.stopping.wait(left_s)
        else:
            gevent.sleep(max(0.0, left_s))  # half as dear, which counts at thousands a second
        return not self.stopping.is_set()

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def draw(self) -> PlannedRequest:
        """The next call of the mix."""
        return self._traffic.draw()

    def answer(self, client: Any, call: PlannedRequest) -> tuple[str, int]:
        """Send ``call``; the outcome, and the length of the answer in bytes."""
        return self.protocol.ask(client, call, self._references)

    def ask(self, client: Any, call: PlannedRequest, due_s: float) -> None:
        """Send a call that was due at ``due_s``, and record it, here and in locust's statistics."""
        sent_s = self.now()
        outcome, size = self.answer(client, call)
        self.note(call, due_s, sent_s, outcome, size)

    def note(self, call: PlannedRequest, due_s: float, sent_s: float, outcome: str, size: int = 0) -> None:
        """Record an outcome of now."""
        done_s = self.now()
        self.record.add(call.kind, due_s, sent_s, done_s, outcome, len(call.texts))
        self._environment.events.request.fire(
            request_type=self.protocol.request_type,
            name=call.kind,
            response_time=(done_s - due_s) * 1000,
            response_length=size,
            exception=None if outcome == OK else AnswerError(outcome),
            context={},
        )

    def ask_now(self, client: Any) -> None:
        """A call that is due as soon as a user is free to send it.

        It counts once it has an outcome: locust ends users in the middle of one that had just begun.
        """
        call, due_s = self.draw(), self.now()
        self.ask(client, call, due_s)
        self.record.at(due_s, call.kind).due += 1

    def _make_traffic(self, seed: int) -> Traffic:
        options = self.options
        weights = parse_traffic(options.traffic)
        return Traffic(self.protocol.requests, weights, read_texts(limit=options.texts), seed)

    def _make_protocol(self) -> ServingProtocol:
        options = self.options
        return _PROTOCOLS[options.protocol](options, self.host, self._token)


def send_at_set_times(run: Run, client: Any) -> None:
    """Send this process's part of the open loop; returns when the last answer is there or given up."""
    options = run.options
    run.record.facts["generators"] += 1
    rate = None if options.rate is None else options.rate / run.generators
    if rate is None:
        capacity = _find_capacity(run, client)
        if not capacity or run.stopping.is_set():
            run.record.facts["finished"] += 1
            return
        run.record.facts["capacity"] += round(capacity)
        rate = options.load * capacity
        run.record.facts["asked_milli"] += round(1000 * rate)
        _log.info("capacity: %.0f requests/s; asking for %.0f", capacity, rate)
        run.stopping.wait(_REST_S)
    under_way = Pool(options.max_in_flight)
    run.restart(under_load=True)
    for due_s in arrivals(options.shape, rate, options.duration, options.arrivals == "even", run.seed):
        if not run.wait_until(due_s):
            break
        call = run.draw()
        run.record.at(due_s, call.kind).due += 1
        if under_way.free_count():
            under_way.spawn(run.ask, client, call, due_s)
        else:
            run.note(call, due_s, run.now(), _UNSENT)
    under_way.join()
    run.record.facts["finished"] += 1


def _find_capacity(run: Run, client: Any) -> float:
    """Good answers a second of a closed loop, without its first quarter; what is wrong fails the run."""
    options = run.options
    users = max(1, options.calibration_users // run.generators)
    run.restart(under_load=False)
    outcomes: Counter[str] = Counter()
    good = 0

    def ask_on() -> None:
        nonlocal good
        while run.now() < options.calibration and not run.stopping.is_set():
            outcome, _ = run.answer(client, run.draw())
            outcomes[outcome] += 1
            good += outcome == OK and run.now() >= options.calibration / 4

    pool = Pool(users)
    for _ in range(users):
        pool.spawn(ask_on)
    pool.join()
    run.record.calibrated(outcomes, found=bool(good))
    return good / (options.calibration * 3 / 4)

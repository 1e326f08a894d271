"""Sends texts that were answered to a second model, when nothing else is to be done.

Callers do not wait for it: a text is taken after its answer has left, and one at a time is sent, when no
request is in progress. Under load, when there is no such moment, it is sent while nothing waits and a call
slot stays free, and `BUSY_SHARE` bounds the time in which such a call is under way. What finds no moment
is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, BackendUnavailable, NoSuchModel
from gateway.domain.requests import TaskRequest, TextRequest
from gateway.domain.service import Classification, Predictor, TaskAnswer
from gateway.domain.tasks import Task
from gateway.shadow.comparison import Comparison, compare

_log = logging.getLogger("tritonflare.shadow")

MAX_TEXTS = 64
"""Most texts that wait; one process's."""
MAX_BYTES = 256 * 1024
"""Most bytes of them together."""
_HOLD_S = 0.05
"""How long a text is held back at least: by then its answer has left."""
_MAX_WAIT_S = 5.0
"""How long a text waits for its moment until it is dropped."""
_PATIENCE_S = 0.1
"""How long it waits for a moment without any request, until one in which nothing waits will do."""
_POLL_S = 0.005
_LIVE_S = 1.0
"""How long after a request others are expected."""
BUSY_SHARE = 0.05
"""Share of the time in which a call may be under way while requests are expected; all processes' together."""
_END_S = 2.0
"""How long the call that is under way may take when the gateway ends."""

Drop = Literal["full", "busy", "unavailable"]
"""No room in the queue; no moment without live requests; the second model is not served or not ready."""


class ShadowEvents(Protocol):
    """What is counted."""

    def compared(self, model: Model, shadow: Model, found: Comparison) -> None:
        """Both models have answered a text."""
        ...

    def failed(self, model: Model, shadow: Model) -> None:
        """The second model gave an error."""
        ...

    def dropped(self, model: str, shadow: str, reason: Drop) -> None:
        """A text was not sent."""
        ...


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the mirror observes of live requests.

    Attributes:
        in_flight: how many texts of callers are in progress.
        has_spare_slot: whether nothing waits for a model, and a slot stays free beside one more call.
        is_quiet: whether no text waits for any model.
        is_available: whether a model answers.
    """

    in_flight: Callable[[], int]
    has_spare_slot: Callable[[Model], bool]
    is_quiet: Callable[[], bool]
    is_available: Callable[[Model], bool]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A text that was answered."""

    model: Model
    shadow: str
    request: TextRequest
    answer: Classification
    size: int
    since: float


class Mirror:
    """Collects answered texts and asks second models; belongs to the event loop that runs it.

    Args:
        rules: by name of a model: that of the second one, and the share of texts, 0 to 1; aliases will do.
            They count from the first `resolve` on.
        predictor: answers with what callers get too, but without a cache.
        find: finds a model by its public name; see `Catalogue.find`.
        capacity: tells when nothing else is to be done.
        events: counts.
        deadline_s: of each text.
        busy_share: share of the time, 0 to 1, in which this process's call may be under way while requests
            are expected.
    """

    def __init__(
        self,
        rules: Mapping[str, tuple[str, float]],
        predictor: Predictor,
        find: Callable[[str], Model],
        capacity: Capacity,
        events: ShadowEvents,
        deadline_s: float,
        busy_share: float = BUSY_SHARE,
    ) -> None:
        self._given_rules = rules
        self._rules: dict[str, tuple[str, float]] = {}
        """By public names, so that an alias of a model means that model."""
        self._told: frozenset[str] = frozenset()
        """Warnings of the last `resolve`."""
        self._predictor = predictor
        self._find = find
        self._capacity = capacity
        self._events = events
        self._deadline_s = deadline_s
        self._busy_share = busy_share
        self._pending: deque[_Pending] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._live_at = -_LIVE_S
        self._rests_until = 0.0
        self._ending = asyncio.Event()

    def resolve(self) -> None:
        """Find out which models the rules mean now; to be called whenever the models may have changed.

        What cannot be compared is logged, once as long as that lasts.
        """
        rules: dict[str, tuple[str, float]] = {}
        warnings: set[str] = set()
        for name, (second, share) in self._given_rules.items():
            try:
                model = self._find(name).name
            except BackendUnavailable:
                return  # no model at all is known
            except NoSuchModel:
                warnings.add(f"{name} is compared with no second model: it is not served")
                continue
            try:
                shadow = self._find(second).name
            except NoSuchModel:
                shadow = second  # its texts are counted as dropped until it is there
                warnings.add(f"{name} is not compared with {second}: that is not served")
            if shadow == model or model in rules:
                why = f"both are {model}" if shadow == model else f"{model} is compared already"
                warnings.add(f"{name} is not compared with {second}: {why}")
                continue
            rules[model] = shadow, share
        for warning in sorted(warnings - self._told):
            _log.warning("GATEWAY_SHADOW: %s", warning)
        self._rules, self._told = rules, frozenset(warnings)

    def offer(self, model: Model, request: TaskRequest, answer: TaskAnswer) -> None:
        """Take a text that was answered, or not; returns at once and raises nothing."""
        rule = self._rules.get(model.name)
        if rule is None or not isinstance(request, TextRequest) or not isinstance(answer, Classification):
            return
        if answer.windows > 1:
            return  # the second model would read the beginning alone
        shadow, share = rule
        if random.random() >= share:  # noqa: S311 (no secret depends on it)
            return
        # The caller waits meanwhile, so nothing is encoded that there is no room for.
        is_full = len(self._pending) >= MAX_TEXTS
        size = 0 if is_full else sum(map(len, request.inputs()))
        if is_full or self._bytes + size > MAX_BYTES:
            self._events.dropped(model.name, shadow, "full")
            return
        now = asyncio.get_running_loop().time()
        self._pending.append(_Pending(model, shadow, request, answer, size, now))
        self._bytes += size
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask second models in the background; at the end, the call under way is finished."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._ending.set()
            self._wake.set()
            await asyncio.wait((task,), timeout=_END_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._ending.is_set():
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
                continue
            text = self._pending[0]
            try:
                await self._handle(text)
            except Exception:
                # Whatever it is, callers have their answers, and the next text may fare better.
                _log.exception("a text for %s could not be compared", text.shadow)

    async def _handle(self, text: _Pending) -> None:
        """Send the first text that waits, or drop it; it stays in the queue until its moment has come."""
        try:
            shadow = await self._moment_for(text)
        finally:
            self._pending.popleft()
            self._bytes -= text.size
        if self._ending.is_set():
            return
        if isinstance(shadow, Model):
            await self._ask(text, shadow)
        else:
            self._events.dropped(text.model.name, text.shadow, shadow)

    async def _moment_for(self, text: _Pending) -> Model | Drop:
        """Wait until a text may be sent; return the second model, or why it is not asked."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._ending.is_set():
            now = loop.time()
            is_live = self._capacity.in_flight() > 0
            if is_live:
                self._live_at = now
            if now - text.since > _MAX_WAIT_S:
                break
            may_send = now >= self._rests_until or now - self._live_at >= _LIVE_S
            if may_send and now >= text.since + _HOLD_S:
                shadow = self._second_model(text)
                if shadow is None:
                    return "unavailable"
                will_do = now - began >= _PATIENCE_S and self._capacity.is_quiet()
                if (not is_live or will_do) and self._capacity.has_spare_slot(shadow):
                    return shadow
            await asyncio.sleep(_POLL_S)
        return "busy"

    def _second_model(self, text: _Pending) -> Model | None:
        try:
            shadow = self._find(text.shadow)
        except (NoSuchModel, BackendUnavailable):
            return None
        is_usable = shadow.task is Task.CLASSIFICATION and self._capacity.is_available(shadow)
        return shadow if is_usable else None

    async def _ask(self, text: _Pending, shadow: Model) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await self._predictor.answer(shadow, text.request, self._deadline_s)
            if isinstance(answer, Classification):
                self._events.compared(text.model, shadow, compare(text.answer, answer))
        except AiError:
            self._events.failed(text.model, shadow)
        except Exception:
            self._events.failed(text.model, shadow)
            raise
        finally:
            now = loop.time()
            if self._capacity.in_flight() > 0:
                self._live_at = now
            self._rests_until = now + (now - began) * (1 / self._busy_share - 1)

"""The answer cache: a text that was answered before, by the same model, is not computed again.

Texts are not kept, only their hashes and the scores. Equal texts that are in flight at the same time are
computed once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from itertools import count
from typing import Literal

from gateway.domain.backend import Answer, AnswerSource, RawScores
from gateway.domain.catalogue import Model
from gateway.domain.errors import AiError, DeadlineExceeded, Overloaded, without_frames
from gateway.domain.inputs import ModelInput, Window
from gateway.domain.options import NO_OPTIONS, CallOptions

Lookup = Literal["hit", "shared", "miss"]
"""Kept; not kept, but in flight for another request; to be computed."""

_EXPIRY = struct.Struct("<d")
"""End of an entry that does not stay for as long as there is room: when it expires, in the loop's time."""

_ENTRY_BYTES = 198
"""Memory of an entry beside its packed scores; measured, and a test measures it again."""


class _Served:
    """A model whose answers may be kept."""

    __slots__ = ("model", "salt", "scores", "tag")

    def __init__(self, model: Model, number: int) -> None:
        self.model = model
        self.tag = number.to_bytes(8, "big")
        """Prefix of its keys, by which `forget` finds them."""
        # All fields: each difference between two versions of a model may change an answer.
        self.salt = hashlib.sha256(json.dumps(asdict(model)).encode()).digest()
        self.scores = struct.Struct(f"<q{len(model.labels)}d")

    def keys(self, inputs: Sequence[ModelInput]) -> list[bytes]:
        """Return the key of each input; what neighbours share, a query or a long text, is hashed once."""
        keys = []
        shared: bytes | None = None
        kind: type[object] = bytes
        begun = hashlib.sha256()
        for data in inputs:
            if isinstance(data, bytes):
                digest = hashlib.sha256(self.salt + data)
            else:
                both, own = (data.text, data.rest()) if isinstance(data, Window) else (data.query, data.text)
                if both is not shared or type(data) is not kind:
                    kind = type(data)
                    shared, begun = both, hashlib.sha256(self.salt + data.prefix())
                digest = begun.copy()
                digest.update(own)
            keys.append(self.tag + digest.digest())
        return keys

    def pack(self, answer: RawScores, expires: float | None) -> bytes | None:
        """Return what to keep of an answer: None if its logits are invalid."""
        if len(answer.logits) != len(self.model.labels) or not all(map(math.isfinite, answer.logits)):
            return None
        end = b"" if expires is None else _EXPIRY.pack(expires)
        return self.scores.pack(answer.token_count, *answer.logits) + end

    def unpack(self, packed: bytes) -> RawScores:
        token_count, *logits = self.scores.unpack_from(packed)
        return RawScores(tuple(logits), token_count, cached=True)

    def expires(self, packed: bytes) -> float:
        """Return when an entry expires; inf for never."""
        if len(packed) == self.scores.size:
            return math.inf
        return float(_EXPIRY.unpack_from(packed, self.scores.size)[0])


class _Entries:
    """The entries, in two halves of the bound: used ones move to the new half, the old half is dropped.

    That approximates least-recently-used. An ``OrderedDict`` that is full and turns over (``cachetools`` has
    two dictionaries beside one) takes twice as much memory and blocks the loop seven times as long when its
    table is resized.
    """

    def __init__(self, max_bytes: int, evicted: Callable[[int], None]) -> None:
        self._half = max_bytes // 2
        self._evicted = evicted
        self._new: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._new_bytes = self._old_bytes = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    @property
    def size_bytes(self) -> int:
        return self._new_bytes + self._old_bytes

    def get(self, key: bytes) -> bytes | None:
        packed = self._new.get(key)
        if packed is None and key in self._old:
            packed = self._old.pop(key)
            self._old_bytes -= _cost(packed)
            self.put(key, packed)
        return packed

    def put(self, key: bytes, packed: bytes) -> None:
        """Add an entry that is not there yet."""
        cost = _cost(packed)
        if cost > self._half:
            return
        if self._new_bytes + cost > self._half:
            self._evicted(len(self._old))
            self._old, self._old_bytes = self._new, self._new_bytes
            self._new, self._new_bytes = {}, 0
        self._new[key] = packed
        self._new_bytes += cost

    def drop(self, key: bytes) -> None:
        """Drop an entry that `get` has just returned, so that it is among the new ones."""
        self._new_bytes -= _cost(self._new.pop(key))

    def forget(self, tag: bytes) -> None:
        """Drop the entries whose key starts with ``tag``."""
        self._new = {key: packed for key, packed in self._new.items() if not key.startswith(tag)}
        self._old = {key: packed for key, packed in self._old.items() if not key.startswith(tag)}
        self._new_bytes = sum(map(_cost, self._new.values()))
        self._old_bytes = sum(map(_cost, self._old.values()))


class AnswerCache:
    """An AnswerSource in front of another one; belongs to the event loop that runs it.

    Args:
        source: computes the answers that are not kept.
        max_bytes: bound on the memory of the entries.
        looked_up: called for each text.
        evicted: called with the number of entries that were dropped to make room.
    """

    def __init__(
        self,
        source: AnswerSource,
        max_bytes: int,
        looked_up: Callable[[Lookup], None] = lambda result: None,
        evicted: Callable[[int], None] = lambda entries: None,
    ) -> None:
        self._source = source
        self._looked_up = looked_up
        # Packed, an entry is a third smaller, and the garbage collector does not traverse it.
        self._entries = _Entries(max_bytes, evicted)
        self._served: dict[str, _Served] = {}
        self._flights: dict[bytes, asyncio.Future[Answer | None]] = {}
        self._numbers = count()

    @property
    def size_bytes(self) -> int:
        """Memory that the entries take, estimated."""
        return self._entries.size_bytes

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._entries)

    def serve(self, models: Iterable[Model]) -> None:
        """Keep answers of these objects only (by identity); those of all other models are dropped."""
        before, self._served = self._served, {}
        for model in models:
            known = before.get(model.name)
            if known is None or known.model is not model:
                known = _Served(model, next(self._numbers))
            self._served[model.name] = known
        for gone in before.values():
            if self._served.get(gone.model.name) is not gone:
                self._entries.forget(gone.tag)

    async def classify(
        self,
        model: Model,
        texts: Sequence[ModelInput],
        deadline_s: float,
        options: CallOptions = NO_OPTIONS,
    ) -> list[Answer]:
        """Return for each of ``texts``, in order, its scores or its own error; only scores are kept.

        A text that is in flight for another request is awaited, and computed again if that request is
        cancelled or exceeds its deadline. A lifetime among the options is that of the entries that this
        request adds; those that are there keep theirs.
        """
        served = self._served.get(model.name)
        if served is None or served.model is not model or options.bypasses_cache:
            # Without these options, it was replaced while the request came in.
            return [_fresh(answer) for answer in await self._source.classify(model, texts, deadline_s)]
        ends, ttl_s = asyncio.get_running_loop().time() + deadline_s, options.cache_ttl_s
        keys = served.keys(texts)
        if len(texts) == 1:
            return [await self._answer(served, keys[0], texts[0], ends, ttl_s)]
        answers: list[Answer | None] = [self._find(served, key) for key in keys]
        missing = [place for place, answer in enumerate(answers) if answer is None]
        for _ in range(len(texts) - len(missing)):
            self._looked_up("hit")
        computed = await asyncio.gather(
            *(self._answer(served, keys[place], texts[place], ends, ttl_s) for place in missing)
        )
        found = iter(computed)
        return [next(found) if answer is None else answer for answer in answers]

    async def _answer(
        self, served: _Served, key: bytes, text: ModelInput, ends: float, ttl_s: int | None
    ) -> Answer:
        kept = self._find(served, key)
        flight = self._flights.get(key)
        self._looked_up("hit" if kept else "shared" if flight else "miss")
        while kept is None and flight is not None:
            done, _ = await asyncio.wait((flight,), timeout=ends - asyncio.get_running_loop().time())
            if not done:
                return DeadlineExceeded()
            answer = flight.result()
            if answer is not None:
                # The timing belongs to the request that sent the text.
                return answer if isinstance(answer, AiError) else replace(answer, timing=None)
            # That request has ended without an answer; the first waiter to wake computes it.
            kept, flight = self._find(served, key), self._flights.get(key)
        return kept or await self._compute(served, key, text, ends, ttl_s)

    async def _compute(
        self, served: _Served, key: bytes, text: ModelInput, ends: float, ttl_s: int | None
    ) -> Answer:
        """Get the answer of the source, and share it with waiting requests: None if they must compute it."""
        loop = asyncio.get_running_loop()
        flight = self._flights[key] = loop.create_future()
        shared: Answer | None = None
        try:
            try:
                (answer,) = await self._source.classify(served.model, (text,), ends - loop.time())
            except AiError as exc:
                answer = without_frames(exc)  # of this text only: the others of a batch have their own
            answer = _fresh(answer)
            if isinstance(answer, RawScores) and self._served.get(served.model.name) is served:
                packed = served.pack(answer, None if ttl_s is None else loop.time() + ttl_s)
                if packed is not None:
                    self._entries.put(key, packed)
            if not isinstance(answer, (DeadlineExceeded, Overloaded)):  # a waiter's may be better
                shared = answer
        finally:
            del self._flights[key]
            flight.set_result(shared)
        return answer

    def _find(self, served: _Served, key: bytes) -> RawScores | None:
        packed = self._entries.get(key)
        if packed is not None and served.expires(packed) <= asyncio.get_running_loop().time():
            self._entries.drop(key)
            packed = None
        return None if packed is None else served.unpack(packed)


def _cost(packed: bytes) -> int:
    return _ENTRY_BYTES + len(packed)


def _fresh(answer: Answer) -> Answer:
    return answer if isinstance(answer, AiError) else replace(answer, cached=False)

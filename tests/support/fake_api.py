"""A server that speaks as much of the API as the commands on files use, fast and with programmable faults."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN, ACCOUNT, MODEL = "secret", "me", "@cf/fake/mood"
LABELS = ("NEGATIVE", "POSITIVE")
MAX_WORDS = 510
Fault = tuple[int, int, dict[str, str]]
"""Status, code and headers of an answer to one request."""


def scores_of(text: str) -> tuple[float, float]:
    """Return the scores of a text, the same for the same text."""
    positive = (zlib.crc32(text.encode()) % 99991 + 1) / 99993
    return 1 - positive, positive


@dataclass
class FakeApi:
    """What the server does and has seen."""

    labels: tuple[str, ...] = LABELS
    max_texts: int = 100
    version: str = "1-fake"
    is_listed: bool = True
    """Whether the list of models tells the version."""
    tells_cut: bool = True
    """Whether it says which of several texts were cut."""
    delay_s: float = 0.0
    faults: deque[Fault] = field(default_factory=deque)
    """Each answers one request."""
    is_away: bool = False
    """Whether the list of models gets 503."""
    turned_away: int = 0
    refused: str | None = None
    """The token is refused for a request with this text."""
    queries: set[str] = field(default_factory=set)
    poison: str | None = None
    """A request that holds a text with this word fails as a whole."""
    asked: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    under_way: int = 0
    most_under_way: int = 0
    url: str = ""

    def app(self) -> web.Application:
        """Return the routes."""
        app = web.Application(client_max_size=1 << 20)
        root = f"/client/v4/accounts/{ACCOUNT}/ai"
        app.router.add_post(root + "/run/{model:.+}", self._run)
        app.router.add_get(root + "/models/search", self._search)
        app.router.add_get(root + "/models/schema", self._schema)
        return app

    async def _run(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(401, 10000, "Authentication error")
        self.requests += 1
        self.queries.add(request.query_string)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            body = json.loads(await request.read())
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            return self._answer(body)
        finally:
            self.under_way -= 1

    def _answer(self, body: dict[str, Any]) -> web.Response:
        texts = [item["text"] for item in body["requests"]] if "requests" in body else [body["text"]]
        if self.faults:
            status, code, headers = self.faults.popleft()
            return _error(status, code, "a fault (5e0f)", headers)
        if self.refused in texts:
            return _error(401, 10000, "Authentication error")
        if len(texts) > self.max_texts or any(self.poison and self.poison in text for text in texts):
            return _error(
                500, 8007, "AiError: The model failed to answer. (5e0f)", {"x-should-retry": "false"}
            )
        self.asked.update(texts)
        places = [str(place) for place, text in enumerate(texts) if len(text.split()) > MAX_WORDS]
        cut = {"x-truncated": "true"} if places else {}
        if places and self.tells_cut:
            cut["x-truncated-texts"] = ",".join(places)
        cut["x-model-version"] = self.version
        if "requests" not in body:
            return _json({"result": self._scores(texts[0])}, headers=cut)
        responses = [
            {"id": place, "result": self._scores(text), "success": True} for place, text in enumerate(texts)
        ]
        return _json({"result": {"responses": responses}}, headers=cut)

    def _scores(self, text: str) -> list[dict[str, object]]:
        return [
            {"label": label, "score": score}
            for label, score in zip(self.labels, scores_of(text), strict=True)
        ]

    async def _search(self, request: web.Request) -> web.Response:
        if self.is_away:
            self.turned_away += 1
            return _error(503, 3050, "away")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(401, 10000, "Authentication error")
        properties = [{"property_id": "version", "value": self.version}] if self.is_listed else []
        return _json({"result": [{"name": MODEL, "properties": properties}]})

    async def _schema(self, request: web.Request) -> web.Response:
        limits = {"max_input_tokens": 512, "max_requests": self.max_texts}
        items = {"properties": {"label": {"enum": self.labels}}}
        return _json(
            {"result": {"input": {"properties": {}, "x-limits": limits}, "output": {"items": items}}}
        )


def _json(value: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"success": True, "errors": [], "messages": []} | dict(value), headers=headers)  # type: ignore[call-overload]


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"success": False, "result": {}, "errors": [{"code": code, "message": message}], "messages": []}
    return web.json_response(body, status=status, headers=headers)


@contextmanager
def serving(api: FakeApi) -> Iterator[FakeApi]:
    """Serve on a free loopback port, in a thread with an event loop of its own."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(api.app(), access_log=None)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield api
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

"""A browser on the playground of a gateway; modules may have another gateway as ``origin``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import headless_chromium
from tests.support.gateway_process import gateway_before_fake
from tests.support.playground import DESKTOP, PHONE, Visit


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("playground") / "log"
    with gateway_before_fake(log, GATEWAY_MAX_BATCH_TEXTS="3") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_chromium() as started:
        yield started


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def visit(browser: Browser, origin: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    width, height = request.param
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        page = context.new_page()
        visit = Visit(page, origin)
        page.on("console", lambda message: visit.complaints.append(message.text))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("request", lambda sent: visit.requested.append(sent.url))
        page.goto(origin + "/")
        yield visit
        # The browser reports what the policy forbids, and every answer that is an error, on the console.
        unexpected = [
            text for text in visit.complaints if "the server responded with a status of 4" not in text
        ]
        assert unexpected == []
        assert [url for url in visit.requested if not url.startswith((origin, "data:"))] == []

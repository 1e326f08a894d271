"""The page about the API at /reference: all of the document, for people."""

from __future__ import annotations

import re

import msgspec
import pytest
from playwright.sync_api import expect

from gateway.api.playground import description
from tests.support.axe import serious_violations
from tests.support.playground import DESKTOP, Visit

METHODS = ("get", "post")
DESKTOP_ONLY = pytest.mark.parametrize("visit", [DESKTOP], ids=["desktop"], indirect=True)


@pytest.fixture(autouse=True)
def _open(visit: Visit) -> None:
    visit.page.get_by_role("link", name="API reference").click()
    expect(visit.page.locator("#runModel")).to_be_visible()


def test_every_operation_of_the_document_is_on_the_page(visit: Visit) -> None:
    document = msgspec.json.decode(description(playground=True))
    described = {
        (operation["operationId"], method, path, operation["summary"].replace("`", ""))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }
    shown = visit.page.locator(".operation").evaluate_all(
        """(nodes) => nodes.map((node) => [node.id, node.querySelector(".path .method").textContent,
          node.querySelector(".path code").textContent, node.querySelector("h3").textContent])"""
    )
    assert {tuple(each) for each in shown} == described
    assert len(shown) == len(described)
    statuses = visit.page.locator("#runModel .status").all_inner_texts()
    item = document["paths"]["/client/v4/accounts/{account_id}/ai/run/{model}"]
    assert statuses == list(item["post"]["responses"])
    expect(visit.page.locator("#version")).to_have_text(document["info"]["version"])
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@DESKTOP_ONLY
def test_an_operation_shows_its_parameters_body_headers_and_examples(visit: Visit) -> None:
    run = visit.page.locator("#runModel")
    expect(run.locator(".fields").first).to_contain_text("account_id")
    expect(run.locator(".fields").first).to_contain_text("In the query.")
    expect(run).to_contain_text("Authorization: Bearer, or X-Auth-Email with X-Auth-Key.")
    run.get_by_text("BatchInput", exact=True).click()
    expect(run.get_by_text("list of BatchRequest")).to_be_visible()
    answered = run.locator("details", has=visit.page.locator(".status", has_text="200")).first
    answered.locator("summary").first.click()
    answered.get_by_text("Example: one text").click()
    expect(answered.locator("pre").first).to_contain_text('"label": "NEGATIVE"')
    answered.get_by_text(re.compile(r"^\d+ headers$")).click()
    expect(answered).to_contain_text("x-truncated-texts")


@DESKTOP_ONLY
def test_the_filter_leaves_the_operations_with_all_words(visit: Visit) -> None:
    visit.page.get_by_label("Find an operation").fill("post RERANK cohere")
    shown = visit.page.locator(".operation:visible .path code")
    expect(shown).to_have_text(["/rerank", "/v1/rerank", "/v2/rerank"])
    expect(visit.page.get_by_role("status")).to_have_text("3 operations")
    expect(visit.page.locator("#index h2:visible")).to_have_text(["rerankers' APIs"])
    visit.page.get_by_label("Find an operation").fill("")
    assert shown.count() > 30


@DESKTOP_ONLY
def test_an_address_may_name_an_operation(visit: Visit) -> None:
    visit.page.goto("about:blank")
    visit.page.goto(f"{visit.origin}/reference#ready")
    operation = visit.page.locator("#ready")
    expect(operation).to_be_visible()
    expect(operation).to_be_in_viewport()


@DESKTOP_ONLY
def test_a_document_that_cannot_be_read_is_said(visit: Visit) -> None:
    visit.page.route("**/openapi.json", lambda route: route.fulfill(status=429, body=""))
    visit.page.reload()
    expect(visit.page.get_by_role("alert")).to_have_text(
        "The description of the API could not be read. Reload the page."
    )


def test_axe_has_nothing_serious_to_say(visit: Visit) -> None:
    is_wide = visit.page.viewport_size == {"width": DESKTOP[0], "height": DESKTOP[1]}
    visit.page.emulate_media(color_scheme="light" if is_wide else "dark")
    for summary in visit.page.locator("#runModel summary").all():
        if summary.is_visible():
            summary.click()
    assert serious_violations(visit.page) == []

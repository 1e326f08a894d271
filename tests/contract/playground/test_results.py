"""Scores of many labels, long texts, cut texts; and what axe-core says of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from tests.support.axe import serious_violations
from tests.support.fake_triton import SST2, FakeEnsemble
from tests.support.gateway_process import gateway_before_fake
from tests.support.playground import DESKTOP, Visit

LABELS = tuple(f"feeling {place}" for place in range(9))
EMOTIONS = FakeEnsemble(
    name="emotions", public_name="@cf/test/emotions", labels=LABELS, logits=(0, 1, 2, 3, 8, 7, 6, 5, 4)
)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gateway_before_fake(tmp_path_factory.mktemp("results") / "log", EMOTIONS) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _calm(visit: Visit) -> None:
    visit.page.emulate_media(reduced_motion="reduce")
    visit.enter_token()
    expect(visit.page.locator("#model")).to_have_value(SST2)


def _is_wide(visit: Visit) -> bool:
    return visit.page.viewport_size == {"width": DESKTOP[0], "height": DESKTOP[1]}


def test_the_best_five_labels_are_shown_and_the_others_on_demand(visit: Visit) -> None:
    visit.page.locator("#model").select_option("@cf/test/emotions")
    visit.classify()
    first = visit.page.locator("#answers > li").first
    labels = first.locator("dt:visible")
    expect(labels).to_have_text([f"feeling {place}" for place in (4, 5, 6, 7, 8)])
    expect(first.locator("dt.best")).to_have_text("feeling 4")
    more = first.get_by_role("button", name="4 more labels")
    expect(more).to_have_attribute("aria-expanded", "false")
    more.press("Enter")
    expect(labels).to_have_text([f"feeling {place}" for place in (4, 5, 6, 7, 8, 3, 2, 1, 0)])
    first.get_by_role("button", name="Fewer labels").click()
    expect(labels).to_have_count(5)
    second = visit.page.locator("#answers > li").nth(1).locator("dt:visible")
    expect(second).to_have_count(5)


def test_the_text_that_was_cut_is_marked_and_long_ones_unfold(visit: Visit) -> None:
    long = "word " * 600
    visit.write("short", long, "also short", "a\nb\nc\nd\ne\nf")
    visit.classify()
    answers = visit.page.locator("#answers > li")
    expect(answers).to_have_count(4)
    expect(visit.page.locator(".is-cut .text")).to_have_text([long.strip()])
    expect(answers.nth(1).locator(".cut")).to_have_text("Cut: the model read only the first 512 tokens.")
    expect(visit.page.get_by_role("status")).to_contain_text(" · 1 cut to what the model reads")
    expect(visit.page.get_by_role("button", name="Show all of the text")).to_have_count(2)
    text = answers.nth(3).locator(".text")
    height = "(node) => node.clientHeight / parseFloat(getComputedStyle(node).lineHeight)"
    assert round(text.evaluate(height)) == 4
    answers.nth(3).get_by_role("button").press("Enter")
    assert round(text.evaluate(height)) == 6
    expect(answers.nth(3).get_by_role("button")).to_have_text("Show less of the text")
    visit.write(long)  # one text: the gateway need not say which
    visit.classify()
    expect(visit.page.locator(".is-cut .text")).to_have_count(1)
    expect(answers).to_have_count(1)

    def in_windows(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, headers={**response.headers, "x-windows": "16"})

    visit.page.route("**/ai/run/**", in_windows)
    visit.classify()
    expect(visit.page.locator(".cut")).to_have_text("Cut: the model read only the beginning.")


def test_a_long_list_is_shown_a_part_at_a_time_under_its_totals(visit: Visit) -> None:
    visit.write(*(f"text {place}" for place in range(150)))
    visit.classify()
    answers = visit.page.locator("#answers > li")
    expect(visit.page.get_by_role("status")).to_contain_text("150 texts in ")
    expect(visit.page.locator("#totals")).to_have_text("POSITIVE 150 (100 %)")
    expect(answers).to_have_count(100)
    expect(visit.page.locator("#code-note")).to_have_text("With the first 10 of your 150 texts.")
    visit.page.get_by_role("button", name="Show 50 more of 50").press("Enter")
    expect(answers).to_have_count(150)
    expect(answers.nth(100)).to_be_focused()
    expect(visit.page.get_by_role("button", name="Show 50 more")).to_be_hidden()


def test_scores_stand_beside_the_form_on_a_wide_screen_and_below_it_on_a_phone(visit: Visit) -> None:
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    form, scores = (visit.page.locator(name).bounding_box() for name in ("#form", "#scores"))
    assert form
    assert scores
    if _is_wide(visit):
        assert scores["x"] >= form["x"] + form["width"]
        assert scores["y"] == form["y"]
    else:
        assert scores["y"] >= form["y"] + form["height"]


def test_axe_has_nothing_serious_to_say(visit: Visit) -> None:
    visit.page.emulate_media(color_scheme="light" if _is_wide(visit) else "dark")
    visit.page.locator("#access-title").click()
    assert serious_violations(visit.page) == []
    visit.page.locator("#model").select_option("@cf/test/emotions")
    visit.page.get_by_text("About this model").click()
    visit.write("short", "word " * 600)
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    visit.page.locator("#answers button").first.click()
    assert serious_violations(visit.page) == []
    visit.page.get_by_label("Or a file").set_input_files(
        {"name": "a.csv", "mimeType": "text/csv", "buffer": b"text,x\na,b\n"}
    )
    errors = [{"code": 3006, "message": "AiError: too large"}]
    answer = {"success": False, "errors": errors}
    visit.page.route("**/ai/run/**", lambda route: route.fulfill(status=413, json=answer))
    visit.classify()
    visit.page.locator("#error-details summary").click()
    assert serious_violations(visit.page) == []

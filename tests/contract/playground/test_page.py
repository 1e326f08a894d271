"""The page at /: in a real browser, before the real gateway."""

from __future__ import annotations

import re
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect

from gateway.api.playground import PLAYGROUND
from gateway.domain.errors import (
    AiError,
    FrontError,
    InvalidToken,
    MethodNotSupported,
    MissingCredentials,
    NoRoute,
)
from tests.support.fake_triton import SST2
from tests.support.harness import ANY_TOKEN, TOKEN
from tests.support.playground import CONTRAST, Visit, classes_with_code
from tests.support.prefix_proxy import under_a_prefix


def test_lines_become_bars(visit: Visit) -> None:
    visit.page.emulate_media(reduced_motion="reduce")  # a growing bar cannot be measured
    visit.enter_token()
    expect(visit.page.get_by_label("Model")).to_have_value(SST2)
    visit.write("This pizza is great!", "", "  ", "It is <b>not</b>.")
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    assert re.fullmatch(
        r"This pizza is great!\s+NEGATIVE\s+0\.02 %\s+POSITIVE\s+99\.98 %\s*", visit.answer(0)
    )
    assert visit.answer(1).startswith("It is <b>not</b>.")
    widths = "(nodes) => nodes.map((node) => node.getBoundingClientRect().width)"
    tracks = visit.page.locator("#answers .track").evaluate_all(widths)
    bars = visit.page.locator("#answers .bar").evaluate_all(widths)
    assert bars[0] <= 3
    assert bars[1] == pytest.approx(0.9998 * tracks[1], abs=1)
    expect(visit.page.get_by_role("status")).to_have_text(
        re.compile(r"^2 texts in [\d.]+ ms · 0\.03 neurons$")
    )


def test_the_keyboard_is_enough(visit: Visit) -> None:
    keyboard = visit.page.keyboard

    def tab_to(locator: str, key: str = "Tab") -> None:
        for _ in range(12):
            keyboard.press(key)
            if visit.page.locator(locator).evaluate("(node) => node === document.activeElement"):
                outline = visit.page.locator(locator).evaluate(
                    "(node) => getComputedStyle(node).outlineStyle"
                )
                assert outline == "solid"
                return
        raise AssertionError(f"no way to {locator}")

    tab_to("#token")
    keyboard.type(TOKEN)
    keyboard.press("Tab")
    expect(visit.page.get_by_label("Model")).to_have_value(SST2)
    expect(visit.page.locator("#access-title")).to_be_focused()
    tab_to("#model")
    tab_to("#texts")
    keyboard.press("Control+a")
    keyboard.type("One text")
    keyboard.press("Control+Enter")
    expect(visit.page.locator("#answers > li")).to_have_count(1)
    expect(visit.page.get_by_role("heading", name="Scores")).to_be_focused()
    tab_to("#ask", "Shift+Tab")
    keyboard.press("Enter")
    expect(visit.page.get_by_role("heading", name="Scores")).to_be_focused()
    expect(visit.page.get_by_role("status")).to_have_text(re.compile("^1 text in "))
    tab_to("#tab-curl")
    for name in ("Python", "JavaScript", "Worker", "gRPC", "curl"):
        keyboard.press("ArrowRight")
        expect(visit.page.get_by_role("tab", name=name, exact=True)).to_be_focused()
        expect(visit.page.get_by_role("tab", selected=True)).to_have_text(name)


def test_nothing_is_wider_than_the_window(visit: Visit) -> None:
    visit.enter_token()
    visit.write("word" * 100)
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(1)
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(visit: Visit, scheme: str) -> None:
    visit.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    visit.enter_token()
    visit.write("good", "bad")
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    ratios = dict(visit.page.evaluate(CONTRAST))
    visit.page.get_by_label("Queue as a batch").check()
    visit.write("a", "b", "c", "d")
    visit.classify()
    expect(visit.page.get_by_role("alert")).to_be_visible()
    ratios |= dict(visit.page.evaluate(CONTRAST))
    assert len(ratios) > 20
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}
    assert visit.page.locator("body").evaluate("(node) => getComputedStyle(node).backgroundColor") == (
        "rgb(246, 247, 249)" if scheme == "light" else "rgb(20, 22, 26)"
    )


def test_reduced_motion_stops_the_animation(visit: Visit) -> None:
    visit.enter_token()
    visit.classify()
    bar = visit.page.locator("#answers .bar").first
    assert bar.evaluate("(node) => getComputedStyle(node).animationName") == "grow"
    visit.page.emulate_media(reduced_motion="reduce")
    assert bar.evaluate("(node) => getComputedStyle(node).animationName") == "none"


def test_errors_are_explained_beside_the_code_and_text_of_the_api(visit: Visit) -> None:
    alert = visit.page.get_by_role("alert")
    visit.classify()
    expect(alert).to_have_text("Enter an API token first.")
    expect(visit.page.get_by_label("API token")).to_be_focused()
    visit.enter_token("wrong")
    expect(alert).to_have_text("The token is not known here. Check that all of it was pasted.")
    detail = visit.page.locator("#error-details code")
    expect(detail).to_be_hidden()
    visit.page.locator("#error-details summary").click()
    expect(detail).to_have_text("HTTP 401, code 10000: Authentication error")
    visit.enter_token("naïve")
    expect(alert).to_have_text("The token has a character that no token has. Paste it again.")
    visit.enter_token()
    expect(alert).to_be_hidden()
    visit.write("")
    visit.classify()
    expect(alert).to_have_text("Write at least one text.")
    visit.write("1", "2", "3", "4")
    visit.page.get_by_label("Queue as a batch").check()
    visit.classify()
    expect(alert).to_have_text("At most 3 texts go into one request. Remove some.")
    expect(detail).to_contain_text("HTTP 400, code 5006: AiError")
    visit.page.route("**/ai/run/**", lambda route: route.abort())
    visit.write("1")
    visit.classify()
    expect(alert).to_contain_text("The gateway did not answer.")
    visit.complaints = [text for text in visit.complaints if "net::ERR_FAILED" not in text]


def _fails(visit: Visit, status: int, code: int | None, **headers: str) -> None:
    errors = [{"code": code, "message": "words of the API"}]
    body = {"success": False, "errors": errors} if code is not None else "<html>"
    visit.page.route(
        "**/ai/run/**", lambda route: route.fulfill(status=status, json=body, headers=headers), times=1
    )
    visit.classify()


def test_each_error_of_the_api_has_a_sentence_of_its_own(visit: Visit) -> None:
    visit.enter_token()
    sentence = visit.page.get_by_role("alert")
    detail = visit.page.locator("#error-details code")
    seen = set()
    for kind in (*classes_with_code(FrontError), *classes_with_code(AiError)):
        if kind in (MissingCredentials, InvalidToken) or kind.code in (NoRoute.code, MethodNotSupported.code):
            continue  # what this page never asks for; other protocols share the last two codes
        _fails(visit, kind.status, kind.code)
        expect(detail).to_have_text(f"HTTP {kind.status}, code {kind.code}: words of the API")
        seen.add(sentence.inner_text())
        assert sentence.inner_text() != "The gateway refused the request.", kind
    assert len(seen) > 10
    _fails(visit, 429, 3040, **{"retry-after": "2"})
    expect(sentence).to_have_text("The gateway has too much to do at the moment. Try again in 2 s.")
    _fails(visit, 502, None)
    expect(sentence).to_have_text("What answered was not the gateway.")
    visit.complaints = [text for text in visit.complaints if "status of 5" not in text]


def test_answers_and_errors_are_on_the_screen_when_they_come(visit: Visit) -> None:
    visit.page.emulate_media(reduced_motion="reduce")
    visit.enter_token()
    expect(visit.page.get_by_label("Model")).to_have_value(SST2)
    visit.classify()
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    assert visit.in_the_window("#answers > li")
    assert visit.in_the_window("#status")
    expect(visit.page.get_by_role("status")).to_have_text(re.compile("^2 texts in "))
    visit.page.evaluate("scrollTo(0, 0)")
    visit.page.route("**/ai/run/**", lambda route: route.fulfill(status=401, json={}), times=1)
    visit.classify()
    expect(visit.page.get_by_role("alert")).to_be_visible()
    assert visit.in_the_window("#error")
    expect(visit.page.get_by_label("API token")).to_be_visible()


def test_an_error_does_not_cover_what_has_the_focus(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 560})
    visit.enter_token("wrong")
    expect(visit.page.get_by_role("alert")).to_be_visible()
    for _ in range(14):
        visit.page.keyboard.press("Tab")
        covered = visit.page.evaluate(
            """() => {
              const nodes = [document.getElementById("error"), document.activeElement];
              const [error, focus] = nodes.map((node) => node.getBoundingClientRect());
              return !nodes[0].contains(nodes[1]) && focus.top >= error.top && focus.bottom <= error.bottom;
            }"""
        )
        assert not covered, visit.page.evaluate("document.activeElement.id")


def test_what_is_on_the_screen_already_does_not_move(browser: Browser, origin: str) -> None:
    with browser.new_context(viewport={"width": 1200, "height": 1400}) as context:
        visit = Visit(context.new_page(), origin)
        visit.page.goto(origin + "/")
        visit.enter_token()
        visit.classify()
        expect(visit.page.locator("#answers > li")).to_have_count(2)
        assert visit.page.evaluate("scrollY") == 0


def test_the_fields_of_an_accepted_token_fold_away_and_open_when_asked_for(visit: Visit) -> None:
    token, heading = visit.page.get_by_label("API token"), visit.page.locator("#access-title")
    visit.enter_token("wrong")
    expect(visit.page.get_by_role("alert")).to_be_visible()
    visit.page.locator("#texts").focus()
    expect(token).to_be_visible()
    visit.enter_token()
    expect(heading).to_contain_text("token accepted")
    expect(token).to_be_hidden()
    expect(heading).to_be_focused()  # not a field that is gone
    heading.click()
    visit.page.locator("#texts").focus()
    visit.page.wait_for_function("new Promise((done) => setTimeout(() => done(true)))")
    expect(token).to_be_visible()
    visit.page.get_by_role("button", name="Refresh list").click()
    expect(visit.page.locator("#model-note")).to_have_text("1 model is served.")
    expect(token).to_be_visible()
    visit.enter_token(ANY_TOKEN)
    expect(token).to_be_hidden()
    visit.page.reload()  # the tab knows a token that is good
    expect(token).to_be_hidden()


def test_a_button_does_not_move_from_under_the_pointer(visit: Visit) -> None:
    visit.page.get_by_label("API token").fill(TOKEN)
    visit.page.get_by_role("button", name="Classify").scroll_into_view_if_needed()
    box = visit.page.get_by_role("button", name="Classify").bounding_box()
    assert box
    visit.page.mouse.move(box["x"] + 10, box["y"] + 10)
    visit.page.mouse.down()  # the token's field loses the focus, and its models come
    expect(visit.page.get_by_label("Model")).to_have_value(SST2)
    visit.page.mouse.up()
    expect(visit.page.locator("#answers > li")).to_have_count(2)
    expect(visit.page.get_by_label("API token")).to_be_hidden()


def test_bars_of_all_texts_begin_in_one_line(visit: Visit) -> None:
    labels = (["NEGATIVE", "POSITIVE"], ["a label with a good many words to it", "no"])
    responses = [
        {"success": True, "result": [{"label": label, "score": 0.5} for label in pair]} for pair in labels
    ]
    answer = {"success": True, "result": {"responses": responses}}
    visit.page.route("**/ai/run/**", lambda route: route.fulfill(json=answer))
    visit.enter_token()
    visit.classify()
    tracks = visit.page.locator("#answers .track")
    expect(tracks).to_have_count(4)
    boxes = tracks.evaluate_all(
        "(nodes) => nodes.map((node) => [node.getBoundingClientRect().left, node.clientWidth])"
    )
    assert len({tuple(box) for box in boxes}) == 1
    assert boxes[0][1] > 60


def test_the_page_works_under_the_path_of_a_proxy(browser: Browser, origin: str) -> None:
    port = urlsplit(origin).port
    assert port
    with under_a_prefix(port) as prefixed, browser.new_context() as context:
        visit = Visit(context.new_page(), prefixed)
        visit.page.goto(f"{prefixed}/")
        visit.enter_token()
        visit.classify()
        expect(visit.page.locator("#answers > li")).to_have_count(2)
        expect(visit.page.locator("#snippet")).to_contain_text(f"'{prefixed}/client/v4/accounts/")
        links = visit.page.get_by_role("navigation").get_by_role("link")
        hrefs = links.evaluate_all("(nodes) => nodes.map((node) => node.href)")
        assert hrefs == [f"{prefixed}/reference", f"{prefixed}/openapi.json"]
        links.first.click()
        expect(visit.page.locator("#runModel")).to_be_visible()


def test_the_list_of_models_has_those_of_every_page(visit: Visit) -> None:
    def two_a_page(route: Route) -> None:
        (page,) = parse_qs(urlsplit(route.request.url).query)["page"]
        names = {"1": ["@a/1", "@a/2"], "2": ["@a/3"]}.get(page, [])
        route.fulfill(json={"success": True, "result": [{"name": name} for name in names]})

    visit.page.route("**/ai/models/search**", two_a_page)
    visit.enter_token()
    models = visit.page.get_by_label("Model").locator("option")
    # The gateway serves none of them and has no schema for the first; the others can be chosen all the same.
    expect(visit.page.get_by_role("alert")).to_be_visible()
    expect(models).to_have_text(["@a/1", "@a/2", "@a/3"])


def test_enter_in_the_field_of_the_token_classifies(visit: Visit) -> None:
    visit.page.get_by_label("API token").fill(TOKEN)
    visit.page.get_by_label("API token").press("Enter")
    expect(visit.page.locator("#answers > li")).to_have_count(2)


def test_the_token_lives_as_long_as_the_tab_and_is_in_no_snippet(visit: Visit) -> None:
    visit.enter_token()
    expect(visit.page.get_by_label("Model")).to_have_value(SST2)
    for name in ("curl", "Python", "JavaScript", "Worker", "gRPC"):
        visit.page.get_by_role("tab", name=name, exact=True).click()
        snippet = visit.page.locator("#snippet").inner_text()
        assert TOKEN not in snippet
        assert SST2 in snippet
    visit.page.reload()
    expect(visit.page.get_by_label("API token")).to_have_value(TOKEN)
    assert TOKEN not in "".join(visit.requested)
    assert visit.page.evaluate("localStorage.length + document.cookie.length") == 0
    other = visit.page.context.new_page()
    other.goto(visit.origin)
    expect(other.get_by_label("API token")).to_have_value("")


def test_the_list_of_models_is_read_again(visit: Visit) -> None:
    served = ["@a/1", "@a/2"]

    def listed(route: Route) -> None:
        names = served if "page=1" in route.request.url else []
        properties = [{"property_id": "max_input_tokens", "value": "128"}]
        records = [
            {"name": name, "description": f"It is {name}.", "properties": properties} for name in names
        ]
        route.fulfill(json={"success": True, "result": records})

    schema = {"input": {}, "output": {"items": {"properties": {"label": {"enum": ["good", "bad"]}}}}}
    visit.page.route("**/ai/models/search**", listed)
    visit.page.route(
        "**/ai/models/schema**", lambda route: route.fulfill(json={"success": True, "result": schema})
    )
    visit.enter_token()
    model = visit.page.get_by_label("Model", exact=True)
    expect(model.locator("option")).to_have_text(served)
    model.select_option("@a/2")
    expect(visit.page.locator("#description")).to_have_text("It is @a/2.")
    visit.page.get_by_text("About this model").click()
    expect(visit.page.locator("#facts")).to_contain_text("2 labelsgood, badReads up to128 tokens of a text")
    served.append("@a/3")
    visit.page.get_by_role("button", name="Refresh").click()
    expect(model.locator("option")).to_have_text(served)
    expect(model).to_have_value("@a/2")
    expect(visit.page.locator("#model-note")).to_have_text("3 models are served.")
    refused = {"success": False, "errors": [{"code": 10000, "message": "words of the API"}]}
    visit.page.route("**/ai/models/search**", lambda route: route.fulfill(status=401, json=refused))
    visit.page.get_by_role("button", name="Refresh").click()
    expect(visit.page.get_by_role("alert")).to_contain_text("The token is not known here.")
    expect(visit.page.locator("#model-note")).to_have_text("")  # how many there are is not known
    visit.page.unroute("**/ai/models/search**")
    visit.page.route("**/ai/models/search**", listed)
    visit.page.get_by_role("button", name="Refresh").click()
    model.select_option("@a/2")
    served.remove("@a/2")
    _fails(visit, 400, 5007)  # the model has gone since
    expect(model.locator("option")).to_have_text(served)
    expect(visit.page.get_by_role("alert")).to_contain_text("This model is not served any more.")


def test_the_page_may_do_only_what_it_needs(origin: str) -> None:
    for path in PLAYGROUND:
        with urllib.request.urlopen(origin + path) as answer:
            policy = answer.headers["content-security-policy"]
            assert policy.startswith(
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
            )
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"

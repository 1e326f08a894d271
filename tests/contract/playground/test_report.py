"""The report of a model, saved from the playground."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.fake_triton import SST2, FakeEnsemble
from tests.support.gateway_process import gateway_before_fake
from tests.support.playground import Visit

PAGE = "<!doctype html><title>Export report of mood</title>"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("playground")
    (folder / "mood").mkdir()
    mood = FakeEnsemble("mood", "@cf/acme/mood")
    (folder / "mood" / mood.figures).write_text(PAGE)
    with gateway_before_fake(folder / "log", mood, GATEWAY_REPORTS_FOLDER=str(folder)) as port:
        yield f"http://127.0.0.1:{port}"


def test_the_report_of_the_chosen_model_is_saved_and_another_model_has_none(visit: Visit) -> None:
    save = visit.page.get_by_role("button", name="Save the report on this model")
    expect(save).to_be_hidden()
    visit.enter_token()
    models = visit.page.get_by_label("Model")
    models.select_option("@cf/acme/mood")
    with visit.page.expect_download() as saved:
        save.click()
    assert saved.value.suggested_filename == "report-cf-acme-mood.html"
    assert Path(saved.value.path()).read_text() == PAGE
    models.select_option(SST2)
    expect(save).to_be_hidden()

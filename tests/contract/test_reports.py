"""The exporter's report of a model: who may read it, and of which version it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.fake_triton import SST2, FakeEnsemble, FakeTriton
from tests.support.harness import ACCOUNT, TOKEN, Client, running_gateway, settings_for

AI = f"/client/v4/accounts/{ACCOUNT}/ai"
REPORT = f"{AI}/models/report?model={quote(SST2, safe='')}"
PAGE = "<!doctype html><title>Export report</title>"
FIGURES = FakeEnsemble().figures
WITH_TEXTS = "<!doctype html>I was born on the second of May."


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artefacts"
    (folder / "sst2").mkdir(parents=True)
    (folder / "sst2" / FIGURES).write_text(PAGE)
    for name in ("report.html", "report.json", "report.md"):
        (folder / "sst2" / name).write_text(WITH_TEXTS)
    return folder


@pytest.fixture
async def reporting(triton: FakeTriton, artefacts: Path) -> AsyncIterator[Client]:
    async with running_gateway(settings_for(triton, reports_folder=artefacts)) as running:
        yield running.client


def properties(answer: Any) -> dict[str, Any]:
    return {each["property_id"]: each["value"] for each in answer.json["result"][0]["properties"]}


async def test_a_caller_with_a_token_finds_and_reads_the_figures(reporting: Client) -> None:
    found = properties(await reporting.get(f"{AI}/models/search"))["report"]
    assert f"{AI}/{found}" == REPORT
    answer = await reporting.get(REPORT)
    assert (answer.status, answer.body.decode()) == (200, PAGE)
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-content-type-options") == "nosniff"
    policy = answer.header("content-security-policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert policy.endswith("sandbox")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 400), ({"Authorization": "Bearer no-such-token"}, 401)],
)
async def test_nobody_else_does(reporting: Client, headers: dict[str, str], status: int) -> None:
    answer = await reporting.send("GET", REPORT, headers=headers)
    assert answer.status == status
    assert PAGE not in answer.body.decode()
    foreign = REPORT.replace(ACCOUNT, "f" * 32)
    mine = {"Authorization": f"Bearer {TOKEN}"}
    assert (await reporting.send("GET", foreign, headers=mine)).status == 403


@pytest.mark.parametrize("name", ["report.html", "report.json", "report.md", FIGURES])
async def test_no_file_of_the_folder_has_a_path_of_its_own(reporting: Client, name: str) -> None:
    for path in (f"/sst2/{name}", f"/reports/sst2/{name}", f"{AI}/models/report/{name}"):
        answer = await reporting.get(path)
        assert answer.status != 200
    odd = await reporting.get(f"{AI}/models/report?model={quote(f'../sst2/{name}', safe='')}")
    assert odd.json["errors"][0]["code"] == 5007


@pytest.mark.parametrize("change", [{"labels": '["BAD", "GOOD"]'}, {"max_tokens": "128"}])
async def test_the_report_of_another_version_is_not_shown(
    triton: FakeTriton, artefacts: Path, change: dict[str, str]
) -> None:
    triton.ensembles[0].overrides = {f"tritonflare.{key}": value for key, value in change.items()}
    async with running_gateway(settings_for(triton, reports_folder=artefacts)) as running:
        assert "report" not in properties(await running.client.get(f"{AI}/models/search"))
        answer = await running.client.get(REPORT)
        assert (answer.status, answer.json["errors"][0]["code"]) == (400, 5006)
        assert "this model has no report" in answer.json["errors"][0]["message"]


@pytest.mark.parametrize("name", ["..", ".", "../other", "sst2/sub", "/{artefacts}/sst2", "a\0b", "x" * 300])
async def test_what_triton_calls_a_model_leads_out_of_no_folder(
    triton: FakeTriton, artefacts: Path, name: str
) -> None:
    for folder in (artefacts, artefacts.parent, artefacts.parent / "other", artefacts / "sst2" / "sub"):
        folder.mkdir(exist_ok=True)
        (folder / FIGURES).write_text(PAGE)
    triton.ensembles[0].name = name.format(artefacts=artefacts)
    async with running_gateway(settings_for(triton, reports_folder=artefacts)) as running:
        assert "report" not in properties(await running.client.get(f"{AI}/models/search"))
        answer = await running.client.get(REPORT)
        assert (answer.status, answer.json["errors"][0]["code"]) == (400, 5006)


async def test_a_folder_that_hangs_holds_up_no_other_request(
    reporting: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, released = threading.Event(), threading.Event()
    released_in_time: list[bool] = []

    def hang(file: Path) -> bool:
        asked.set()
        released_in_time.append(released.wait(5))
        return True

    monkeypatch.setattr("gateway.api.reports.isfile", hang)
    searching = asyncio.create_task(reporting.get(f"{AI}/models/search"))
    try:
        assert await asyncio.to_thread(asked.wait, 10)
        assert (await reporting.get("/livez")).status == 200
    finally:
        released.set()
    assert "report" in properties(await searching)
    assert released_in_time == [True]


async def test_without_a_folder_there_are_no_reports(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton)) as running:
        assert "report" not in properties(await running.client.get(f"{AI}/models/search"))
        assert (await running.client.get(REPORT)).status == 400
        assert (await running.client.get(f"{AI}/models/report")).json["errors"][0]["code"] == 5006

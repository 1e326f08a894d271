"""The description at /openapi.json: true to the routes, and to what the gateway answers."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import msgspec
import pytest
import schemathesis
from schemathesis.core.failures import FailureGroup

from embedded.server import TritonServer
from gateway.api.app import App
from gateway.api.playground import description
from gateway.composition import build_app
from tests.support.fake_triton import RERANKER, SST2, FakeTriton, reranker
from tests.support.gateway_process import gateway_before_fake, gateway_before_real
from tests.support.golden_ai_gateway_answers import AI_GATEWAY_DESCRIBED
from tests.support.golden_answers import DESCRIBED, FOLDER, Case
from tests.support.golden_rerank_answers import RERANK_CASES
from tests.support.harness import ACCOUNT, ANY_TOKEN, RUN, Client, running_gateway, settings_for
from tests.support.prefix_proxy import under_a_prefix
from tests.support.queued_batches import QUEUED, batch, fetch

FILLED = {
    "<uuid>": "d9e09afe-fe49-4051-bc1d-8901f858ff52",
    "<ray>": "0123456789abcdef-TFL",
    "<time>": "1",
    "<ms>": "1.2",
}
"""Values for the random parts of the golden files."""


def document(*, playground: bool = True) -> Any:
    return msgspec.json.decode(description(playground=playground))


def openapi_path(template: str) -> str:
    return re.sub(r"\{(\w+):path\}", r"{\1}", template)


def routed(app: App) -> set[tuple[str, str]]:
    """Path and method of every route but the binding's; HEAD is left out, it is GET without the body."""
    return {
        (openapi_path(route.template), method)
        for route in app.routes
        for method in route.methods
        if method != "HEAD" and not (route.tokenless or route.template.endswith("/ai/run/proxy"))
    }


@pytest.mark.parametrize("playground", [True, False])
def test_every_route_is_described_and_nothing_else_is(triton: FakeTriton, playground: bool) -> None:
    app = build_app(settings_for(triton, playground=playground))
    described = {
        (path, key.upper())
        for path, item in document(playground=playground)["paths"].items()
        for key in item
        if key != "parameters"
    }
    assert described == routed(app)


async def test_it_is_served_to_everyone_with_the_version_of_the_package(client: Client) -> None:
    from importlib.metadata import version

    answer = await client.send("GET", "/openapi.json", headers={})
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json == document()
    assert answer.json["info"]["version"] == version("tritonflare")


def test_its_server_is_where_it_was_fetched_from_also_under_the_path_of_a_proxy(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {ANY_TOKEN}"}
    with gateway_before_fake(tmp_path / "log") as port, under_a_prefix(port) as prefixed:
        for origin in (f"http://127.0.0.1:{port}", prefixed):
            fetched = f"{origin}/openapi.json"
            (server,) = httpx.get(fetched).json()["servers"]
            # OpenAPI 3.1: relative to the document; paths are appended to it.
            base = urljoin(fetched, server["url"]).rstrip("/")
            assert base == origin
            answer = httpx.get(f"{base}/client/v4/accounts/{ACCOUNT}/ai/models/search", headers=headers)
            assert answer.status_code == 200


def golden_answer(case: Case) -> httpx.Response:
    """Read the answer out of the golden file of ``case``."""
    text = (FOLDER / f"{case.name}.txt").read_text(encoding="utf-8")
    text = re.sub("|".join(FILLED), lambda found: FILLED[found[0]], text)
    _, _, answer = text.partition("\n\n")
    head, _, body = answer.partition("\n\n")
    status, *lines = head.split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    asked = httpx.Request(case.method, f"http://gateway{case.path}", headers=case.headers)
    found = httpx.Response(
        int(status.split()[1]), headers=headers, content=body.rstrip("\n").encode(), request=asked
    )
    found.elapsed = timedelta(0)
    return found


OUTSIDE = {"7000", "7001", "rerank-405", "tei-405"}
"""Answers to what is no operation of the document: an unknown path, an unknown method."""


@pytest.mark.parametrize(
    "case",
    [case for case in (*DESCRIBED, *RERANK_CASES, *AI_GATEWAY_DESCRIBED) if case.name not in OUTSIDE],
    ids=lambda case: case.name,
)
def test_every_golden_answer_is_as_described(case: Case, triton: FakeTriton) -> None:
    path = case.path.partition("?")[0]
    template = next(
        route.template for route in build_app(settings_for(triton)).routes if route.pattern().fullmatch(path)
    )
    operation = schemathesis.openapi.from_dict(document())[openapi_path(template)][case.method]
    answer = golden_answer(case)
    assert str(answer.status_code) in operation.definition.raw["responses"]
    operation.validate_response(answer)


async def test_a_queued_batch_and_its_result_are_as_described(triton: FakeTriton, tmp_path: Path) -> None:
    template = "/client/v4/accounts/{account_id}/ai/run/{model}"
    operation = schemathesis.openapi.from_dict(document())[template]["POST"]
    async with running_gateway(settings_for(triton, batch_folder=tmp_path)) as running:
        accepted = await running.client.run(batch("a", ""), query=QUEUED)
        finished = await fetch(running.client, accepted.json["result"]["request_id"])
    for answer in (accepted, finished):
        asked = httpx.Request("POST", f"http://gateway{RUN}{QUEUED}")
        found = httpx.Response(answer.status, headers=answer.headers, content=answer.body, request=asked)
        found.elapsed = timedelta(0)
        operation.validate_response(found)


def test_a_wrong_answer_is_not_as_described() -> None:
    operation = schemathesis.openapi.from_dict(document())["/livez"]["GET"]
    with pytest.raises(FailureGroup):
        operation.validate_response(golden_answer(replace(DESCRIBED[0], path="/livez", method="GET")))


CONFIGURATION = f"""
[parameters]
"path.account_id" = "{ACCOUNT}"
"path.model" = "{{model}}"
"""
"""Generated names of models are never served: half of the cases get past that."""

SKIPPED = (
    "ignored_auth",  # wants 401 without credentials, the API says 400
    "positive_data_acceptance",  # wants 200 for a model that nobody serves
)
RERANKERS = "rerankers' APIs"


def _generate(folder: Path, port: int, model: str | None, *filters: str) -> int:
    """Let schemathesis ask what the description says; the number of requests.

    Args:
        folder: for its configuration.
        port: of the gateway.
        model: in paths; generated names without it.
        filters: options of schemathesis that choose operations.
    """
    configuration = "" if model is None else CONFIGURATION.format(model=model)
    (folder / "schemathesis.toml").write_text(configuration)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"),
        f"http://127.0.0.1:{port}/openapi.json",
        *("--header", f"Authorization: Bearer {ANY_TOKEN}"),
        # It appends paths to a relative server as they stand, and does not resolve the dot.
        *("--url", f"http://127.0.0.1:{port}"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"),
        *("--continue-on-failure", "--exclude-checks", ",".join(SKIPPED)),
        *filters,
    ]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    found = re.search(r"^\s*(\d+) generated", done.stdout, re.MULTILINE)
    assert found, done.stdout[-2000:]
    return int(found[1])


@pytest.mark.timeout(300)
def test_generated_requests_are_answered_as_described(tmp_path: Path, real_triton: TritonServer) -> None:
    """2,000 requests of schemathesis before the real Triton: nothing comes back that is not described."""
    with gateway_before_real(tmp_path / "log", real_triton) as port:
        generated = _generate(tmp_path, port, None, "--exclude-tag", RERANKERS)
        generated += _generate(tmp_path, port, SST2, "--include-path-regex", "{model}")
    assert generated >= 2000


@pytest.mark.timeout(300)
def test_generated_requests_for_a_reranker_are_answered_as_described(tmp_path: Path) -> None:
    """Its own APIs, and the paths that name it."""
    with gateway_before_fake(tmp_path / "log", reranker()) as port:
        generated = _generate(tmp_path, port, None, "--include-tag", RERANKERS)
        generated += _generate(
            tmp_path, port, RERANKER, "--include-path-regex", "run/{model}$|{model}/infer$"
        )
    assert generated >= 700

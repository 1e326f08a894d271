"""The exact bytes of success and of every error: ``make golden-http`` writes the files anew."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import errors
from tests.support import golden_answers
from tests.support.fake_triton import FakeTriton
from tests.support.golden_ai_gateway_answers import AI_GATEWAY_CASES
from tests.support.golden_answers import FOLDER, Case, name_random_parts
from tests.support.golden_rerank_answers import RERANK_CASES
from tests.support.harness import Running, running_gateway, settings_for, until

CASES = [*golden_answers.CASES, *RERANK_CASES, *AI_GATEWAY_CASES]
NOT_HTTP = "6003-not-http"
SLOW_HEAD = "3007-slow-head"
ENCODED = "6003-transfer-coding"
DEFECT = "10013"
REWRITE = os.environ.get("REWRITE_GOLDEN") == "1"


async def _exchange(running: Running, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _compare(name: str, document: str) -> None:
    file = FOLDER / f"{name}.txt"
    if REWRITE:
        FOLDER.mkdir(parents=True, exist_ok=True)
        file.write_text(document, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == document


async def _ask(running: Running, case: Case) -> bytes:
    before = [
        asyncio.create_task(_exchange(running, replace(case, body=body).request())) for body in case.before
    ]
    if case.wait_for_before:
        await asyncio.gather(*before)
    elif before:

        async def in_flight() -> bool:
            return await running.client.metric("tritonflare_requests_in_flight") >= len(before)

        await until(in_flight)
    try:
        return await _exchange(running, case.request())
    finally:
        for task in before:
            task.cancel()
        await asyncio.gather(*before, return_exceptions=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_answer_has_the_golden_bytes(triton: FakeTriton, case: Case) -> None:
    case.prepare(triton)
    triton.answer_logits(-2.0, 3.0)
    async with running_gateway(settings_for(triton, **case.settings)) as running:
        _compare(case.name, case.document(await _ask(running, case)))


async def test_what_is_no_http_gets_the_golden_bytes(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton)) as running:
        answer = await _exchange(running, b"GET\r\n\r\n")
    _compare(NOT_HTTP, f"> GET\n>\n>\n\n{name_random_parts(answer)}\n")


async def test_an_encoded_body_gets_the_golden_bytes(triton: FakeTriton) -> None:
    head = "POST / HTTP/1.1", "Host: gateway", "Transfer-Encoding: gzip, chunked", "", ""
    async with running_gateway(settings_for(triton)) as running:
        answer = await _exchange(running, "\r\n".join(head).encode())
    shown = "\n".join(f"> {line}".rstrip() for line in head[:4])
    _compare(ENCODED, f"{shown}\n\n{name_random_parts(answer)}\n")


async def test_a_head_that_does_not_end_gets_the_golden_bytes(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, transfer_timeout_s=1)) as running:
        answer = await _exchange(running, b"GET")
    _compare(SLOW_HEAD, f"> GET\n\n{name_random_parts(answer)}\n")


async def test_a_defect_of_the_gateway_gets_the_golden_bytes(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.api.predict.read_call", broken)
    async with running_gateway(settings_for(triton)) as running:
        case = Case(DEFECT)
        _compare(DEFECT, case.document(await _ask(running, case)))


def test_no_golden_file_is_left_over() -> None:
    expected = {case.name for case in CASES} | {NOT_HTTP, SLOW_HEAD, ENCODED, DEFECT}
    assert {file.stem for file in FOLDER.iterdir()} == expected


OF_THE_INFERENCE_PROTOCOL = {errors.MethodNotImplemented, errors.NoSuchService}
"""Errors that neither renderer gives."""


def _leaves(root: type[errors.TritonflareError]) -> Iterator[type[errors.TritonflareError]]:
    for child in root.__subclasses__():
        if child.code and child not in OF_THE_INFERENCE_PROTOCOL:
            yield child
        yield from _leaves(child)


def _answered(file: Path) -> tuple[int, Any]:
    """The status and the JSON of the answer in a golden file; None for another body, or none."""
    _, _, answer = file.read_text(encoding="utf-8").partition("\n\nHTTP/1.1 ")
    _, _, body = answer.partition("\n\n")
    return int(answer[:3]), None if body.startswith(("<gzip> ", "\n")) else json.loads(body)


@pytest.mark.parametrize(
    ("root", "code_of"),
    [
        (errors.TritonflareError, lambda body: body["errors"][0]["code"] if body.get("errors") else None),
        # What the front refuses has the envelope's form on the binding's routes too.
        (errors.AiError, lambda body: body.get("internalCode")),
    ],
    ids=["envelope", "binding"],
)
def test_every_error_that_a_renderer_can_give_has_a_golden_file(
    root: type[errors.TritonflareError], code_of: Callable[[dict[str, Any]], int | None]
) -> None:
    answers = [_answered(file) for file in FOLDER.iterdir()]
    seen = {(status, code_of(body)) for status, body in answers if isinstance(body, dict)}
    expected = {(error.status, error.code) for error in _leaves(root)}
    expected.discard((499, 499))  # nobody is left to see that one
    assert expected - seen == set()
    assert len(expected) >= 9


def test_the_gateway_ends_a_connection_by_itself_where_the_body_may_never_come() -> None:
    for case in CASES:
        request, _, answer = (FOLDER / f"{case.name}.txt").read_text(encoding="utf-8").partition("\n\n")
        assert "\nconnection: close\n" in answer
        assert ("\n> Connection: close" in request) is not case.keeps_alive

"""The access log with addresses of clients: off by default, from the peer, from a trusted proxy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_json_logs import documented_fields, program
from tests.support.fake_triton import FakeTriton
from tests.support.harness import RUN, TOKEN, access_lines, running_gateway, settings_for

FORWARDED = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
GOOD = b'{"text": "a"}'


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        ({}, ""),
        ({"log_client_address": True}, " client=127.0.0.1"),
        ({"log_client_address": True, "trusted_proxies": "127.0.0.0/8"}, " client=203.0.113.9"),
    ],
)
async def test_the_address_is_logged_where_it_is_asked_for(
    triton: FakeTriton, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], logged: str
) -> None:
    async with running_gateway(settings_for(triton, **settings)) as running:
        answer = await running.client.send("POST", RUN, GOOD, FORWARDED)
        assert answer.status == 200
        (line,) = await access_lines(capsys)
        assert line.endswith(f"id={answer.header('cf-ai-req-id')}{logged}")


async def test_input_that_is_no_request_is_logged_with_the_address_of_the_peer(
    triton: FakeTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(triton, log_client_address=True, trusted_proxies="127.0.0.1")
    async with running_gateway(settings) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
        writer.write(b"X-Forwarded-For: 203.0.113.9\r\n\r\n")
        assert b" 400 " in await reader.read()
        writer.close()
        (line,) = await access_lines(capsys)
        assert line.endswith(" client=127.0.0.1")


async def test_a_line_of_json_has_the_address_as_a_documented_field(
    triton: FakeTriton, tmp_path: Path
) -> None:
    settings = {"GATEWAY_LOG_CLIENT_ADDRESS": "true", "GATEWAY_TRUSTED_PROXIES": "127.0.0.1, ::1"}
    async with program(triton, tmp_path, **settings) as running:
        assert (await running.client.send("POST", RUN, GOOD, FORWARDED)).status == 200
    (line,) = running.of("tritonflare.access")
    assert line["client"] == "203.0.113.9"
    assert line.keys() <= documented_fields()

"""What callers send is in no log line, whatever route they send it to and whatever becomes of it."""

from __future__ import annotations

import asyncio
import json
import re

import grpc
import pytest

from gateway.composition import build_app
from gateway.telemetry.access_log import FLUSH_S
from tests.support.fake_triton import SST2, FakeTriton, fail
from tests.support.harness import ACCOUNT, ANY_TOKEN, TOKEN, Client, running_gateway, settings_for

MARK = "Zq7marked"
BODIES = (
    json.dumps({"text": f"{MARK} text"}),
    json.dumps({"text": "", MARK: MARK}),
    json.dumps({"requests": [{"text": MARK, "external_reference": MARK}, {"text": 5}]}),
    json.dumps({"model": SST2, "input": {"text": MARK}}),
    json.dumps({"inputs": {"text": MARK}}),
    '{"text": "' + MARK,
)
CREDENTIALS: tuple[dict[str, str], ...] = (
    {"Authorization": f"Bearer {TOKEN}"},
    {"Authorization": f"Bearer {ANY_TOKEN}"},
    {"Authorization": f"Bearer {MARK}-token"},
    {"Authorization": f"{MARK} {MARK}"},
    {"X-Auth-Email": f"{MARK}@example.org", "X-Auth-Key": MARK},
    {},
    {"Authorization": f"Bearer {TOKEN}", "Of": "another account"},
)


async def send_everything(client: Client, paths: list[tuple[str, str]]) -> set[int]:
    """Every route with every kind of body and credentials; the statuses that came back."""
    statuses = set()
    for method, template in paths:
        for number, credentials in enumerate(CREDENTIALS):
            for body in BODIES if method == "POST" and number < 2 else BODIES[:1]:
                values = {"model": SST2 if number != 1 else f"@cf/{MARK}"}
                values["account_id"] = MARK if "Of" in credentials else ACCOUNT
                path = re.sub(r"\{(\w+)[^}]*\}", lambda found, v=values: v.get(found[1], MARK), template)  # type: ignore[misc]
                headers = {
                    "cf-consn-model-id": SST2,
                    "X-Forwarded": f"http://internal.ai/run?version=3&{MARK}",
                    "User-Agent": MARK,
                    "Cookie": f"session={MARK}",
                    **credentials,
                }
                sent = body.encode() if method == "POST" else None
                query = f"?version=3&search={MARK}&{MARK}={MARK}"
                statuses.add((await client.send(method, path + query, sent, headers)).status)
    return statuses


async def test_no_log_line_has_a_text_a_token_or_anything_else_that_a_caller_sent(
    triton: FakeTriton, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(triton, log_level="debug")
    paths = [
        (method, route.template) for route in build_app(settings).routes for method in set(route.methods)
    ]
    paths += [("GET", f"/{MARK}"), ("PUT", f"/client/v4/{MARK}")]
    assert len(paths) > 25
    with caplog.at_level("DEBUG"):
        async with running_gateway(settings) as running:
            statuses = await send_everything(running.client, paths)
            triton.infer_fault = fail(grpc.StatusCode.INTERNAL, f"Traceback: {MARK}")
            statuses |= await send_everything(running.client, paths[:3])
            reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
            writer.write(f"{MARK}\r\n\r\n".encode())
            await reader.read()
            writer.close()
        await asyncio.sleep(2 * FLUSH_S)
    assert statuses >= {200, 400, 401, 403, 500}
    captured = capsys.readouterr()
    logged = "\n".join((caplog.text, captured.err, captured.out))
    assert logged.count("tritonflare.access") > 200
    for secret in (MARK, TOKEN, ANY_TOKEN):
        assert secret not in logged, next(line for line in logged.splitlines() if secret in line)

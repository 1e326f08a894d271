"""Liveness, readiness, metrics, logs, shutdown."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest

from gateway.composition import build_app
from gateway.main import serve
from gateway.settings import ConfigurationError
from tests.contract.test_errors import check_ai
from tests.support.fake_triton import SST2, FakeTriton, fail, hold
from tests.support.harness import (
    ACCOUNT,
    RUN,
    TOKEN,
    Client,
    access_lines,
    listens,
    running_gateway,
    settings_for,
    until,
)

GOOD = {"text": "one two three"}


async def test_livez_and_readyz_need_no_token(client: Client) -> None:
    for path, body in (("/livez", b'{"status":"alive"}'), ("/readyz", b'{"status":"ready"}')):
        answer = await client.send("GET", path, headers={})
        assert (answer.status, answer.body) == (200, body)
    assert (await client.send("HEAD", "/readyz", headers={})).body == b""
    assert (await client.send("POST", "/readyz", b"", headers={})).status == 405


async def test_a_model_whose_inference_fails_makes_the_gateway_not_ready(
    client: Client, triton: FakeTriton
) -> None:
    triton.infer_fault = fail(grpc.StatusCode.INTERNAL, "Stub process 'sst2_0_0' is not healthy.")

    async def not_ready() -> bool:
        return (await client.get("/readyz")).status == 503

    await until(not_ready)
    assert (await client.get("/readyz")).json == {
        "status": "not ready",
        "reason": f"no canary answer from {SST2}",
    }
    assert await client.metric("tritonflare_ready") == 0
    triton.infer_fault = None

    async def ready() -> bool:
        return (await client.get("/readyz")).status == 200

    await until(ready)
    assert await client.metric("tritonflare_ready") == 1


async def test_a_model_that_is_only_slow_stays_ready_until_its_canary_is_too_old(triton: FakeTriton) -> None:
    settings = settings_for(triton, canary_timeout_s=0.1, canary_max_age_s=1.0)
    async with running_gateway(settings) as running:
        client = running.client
        triton.infer_fault = hold(asyncio.Event(), canaries=True)
        await asyncio.sleep(0.4)
        assert (await client.get("/readyz")).status == 200

        async def not_ready() -> bool:
            return (await client.get("/readyz")).status == 503

        await until(not_ready, 3)


async def test_metrics_count_requests_by_model_code_and_status(client: Client) -> None:
    await client.run(GOOD)
    await client.run({"text": "word " * 600})
    await client.run({"text": ""})
    for number in range(3):
        await client.run(GOOD, path=f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/no/such-{number}")
    await client.send("POST", RUN, b"{}", {"Authorization": "Bearer wrong"})
    await client.get("/nowhere")

    async def total(model: str, code: int, status: int) -> float:
        return await client.metric(
            f'tritonflare_requests_total{{code="{code}",model="{model}",status="{status}"}}'
        )

    assert await total(SST2, 0, 200) == 2
    assert await total(SST2, 5006, 400) == 1
    assert await total("unknown", 5007, 400) == 3
    assert await total("none", 10000, 401) == 1
    assert await total("none", 7000, 400) == 1
    assert await client.metric(f'tritonflare_tokens_total{{model="{SST2}"}}') == 5 + 512
    assert await client.metric(f'tritonflare_truncated_texts_total{{model="{SST2}"}}') == 1
    assert await client.metric(f'tritonflare_request_duration_seconds_count{{model="{SST2}"}}') == 3
    assert await client.metric("tritonflare_requests_in_flight") == 0
    assert await client.metric('tritonflare_triton_call_duration_seconds_count{outcome="ok"}') >= 3


async def test_metrics_never_hold_what_callers_send(client: Client) -> None:
    await client.run(GOOD, path=f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/invented/name")
    await client.get("/coffee")
    page = (await client.get("/metrics")).body.decode()
    assert "invented" not in page
    assert "coffee" not in page
    assert set(re.findall(r"^[a-z_]+", page, re.MULTILINE)) >= {"tritonflare_requests_total"}
    assert all(
        name.startswith(("tritonflare_", "process_")) for name in re.findall(r"^[a-z_]+", page, re.MULTILINE)
    )


async def test_the_access_log_has_one_line_a_request_and_no_text_or_token(
    client: Client, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await client.run({"text": "a private text"}, query="?result_shape=items&private=query")
    await client.send("POST", RUN, b"{}", {"Authorization": "Bearer private-token"})
    await client.get("/livez")
    lines = await access_lines(capsys)
    assert len(lines) == 2
    assert re.fullmatch(
        r"POST /client/v4/accounts/\{account_id\}/ai/run/\{model\} status=200 code=0 ms=\d+\.\d "
        rf"ray={answer.header('cf-ray')} version={answer.header('x-model-version')} "
        rf"id={answer.header('cf-ai-req-id')}",
        lines[0],
    )
    assert "status=401 code=10000" in lines[1]
    logged = caplog.text + "".join(lines)
    assert "private" not in logged
    assert TOKEN not in logged


async def test_a_variable_that_is_no_setting_is_named_once_at_start_and_its_value_is_not(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def warnings() -> list[str]:
        caplog.clear()
        async with running_gateway(settings_for(triton)):
            found = [record.getMessage() for record in caplog.records if record.name == "tritonflare.gateway"]
        return [line for line in found if "unknown environment" in line]

    assert await warnings() == []
    monkeypatch.setenv("GATEWAY_API_TOKEN", "private")
    monkeypatch.setenv("GATEWAY_SERVICE_HOST", "private")
    assert await warnings() == [
        "unknown environment variables: "
        "GATEWAY_API_TOKEN (did you mean GATEWAY_API_TOKENS?), GATEWAY_SERVICE_HOST"
    ]
    assert "private" not in caplog.text


async def test_a_defect_of_the_gateway_is_a_plain_500_and_its_traceback_is_only_logged(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr("gateway.api.predict.read_call", defect)
    answer = await client.run(GOOD)
    assert (answer.status, answer.body) == (
        500,
        b'{"result":null,"success":false,"errors":[{"code":10013,'
        b'"message":"An unknown error has occurred."}],"messages":[]}',
    )
    assert answer.header("x-should-retry") == "false"
    assert "a secret of the inside" in caplog.text
    assert str(answer.header("cf-ray")) in caplog.text
    assert await client.metric("tritonflare_requests_in_flight") == 0


async def test_shutdown_turns_readiness_off_then_drains_what_is_in_flight(triton: FakeTriton) -> None:
    release = asyncio.Event()
    async with running_gateway(settings_for(triton, shutdown_delay_s=0.5)) as running:
        client = running.client
        triton.infer_fault = hold(release)
        waiting = asyncio.create_task(client.run(GOOD))

        async def inferring() -> bool:
            return triton.running == 1

        await until(inferring)
        running.stop.set()

        async def draining() -> bool:
            readiness = await client.get("/readyz")
            return (readiness.status, readiness.json.get("reason")) == (503, "draining")

        await until(draining)

        async def closed() -> bool:
            return not await listens(client.port)

        await until(closed)
        assert not running.task.done()
        release.set()
        assert (await waiting).status == 200
        await asyncio.wait_for(running.task, 5)


async def test_what_outlives_the_drain_deadline_gets_an_envelope(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, drain_timeout_s=1)) as running:
        triton.infer_fault = hold(asyncio.Event())
        waiting = asyncio.create_task(running.client.run(GOOD))

        async def inferring() -> bool:
            return triton.running == 1

        await until(inferring)
        running.stop.set()
        check_ai(await waiting, 503, 3050, "The model server is not available, please try again.")


@pytest.mark.parametrize("callers", [0, 1])
async def test_a_stop_lets_triton_finish_abandoned_calls_and_logs_nothing(
    triton: FakeTriton, caplog: pytest.LogCaptureFixture, callers: int
) -> None:
    async with running_gateway(settings_for(triton)) as running:
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        for _ in range(callers):
            _, writer = await running.client.open("POST", RUN, b'{"text":"given up"}')

            async def inferring() -> bool:
                return triton.texts == [b"given up"]

            await until(inferring)
            writer.close()
        running.stop.set()
        await asyncio.sleep(0.3)
        release.set()
        await asyncio.wait_for(running.task, 5)
        gc.collect()  # what nobody has retrieved is told then
        assert triton.cancelled == 0
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_cancelling_serve_closes_the_port_and_leaves_no_task(triton: FakeTriton) -> None:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    before = asyncio.all_tasks()
    task = asyncio.create_task(
        serve(settings_for(triton), on_started=started.set_result, stop=asyncio.Event())
    )
    url = await started
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    await asyncio.sleep(0.05)
    ours = {t for t in asyncio.all_tasks() - before if "grpc" not in repr(t)}
    assert ours == set()


async def test_a_port_in_use_is_one_clear_sentence(triton: FakeTriton) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Cannot listen on 127.0.0.1 port {port}: "):
            await serve(settings_for(triton, port=port), stop=asyncio.Event())


def test_without_any_token_no_app_is_built() -> None:
    with pytest.raises(ConfigurationError, match="No API token is configured"):
        build_app(settings_for(FakeTriton(), api_tokens=None, triton_url="127.0.0.1:8001"))


PROGRAM = """
import sys
from gateway.main import run
from gateway.settings import load_settings
run(load_settings())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_the_process_cleanly(
    triton: FakeTriton, number: signal.Signals, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {
        "GATEWAY_PORT": "0",
        "GATEWAY_TRITON_URL": triton.url,
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
    }
    log = tmp_path / "stderr"
    others = set(psutil.Process().children(recursive=True))  # servers of other tests in this run
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM],
            env=environment,
            stderr=stderr,
            cwd=Path(__file__).parents[2],
        )
    try:

        async def started() -> bool:
            assert process.poll() is None, log.read_text()
            return "serving on" in log.read_text()

        await until(started, 20)
        found = re.search(r"serving on http://127\.0\.0\.1:(\d+)/client/v4$", log.read_text(), re.MULTILINE)
        assert found, log.read_text()
        client = Client(int(found[1]))
        release = asyncio.Event()
        triton.infer_fault = hold(release)
        waiting = asyncio.create_task(client.run(GOOD))

        async def inferring() -> bool:
            return triton.running == 1

        await until(inferring)
        process.send_signal(number)
        await asyncio.sleep(0.3)
        release.set()
        assert (await waiting).status == 200
        assert await asyncio.to_thread(process.wait, 10) == 0
        text = log.read_text()
        assert "Traceback" not in text
        assert TOKEN not in text
        assert set(psutil.Process().children(recursive=True)) <= others
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

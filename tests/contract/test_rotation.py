"""Tokens that come, go and expire while the gateway runs."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from itertools import count
from pathlib import Path

import psutil
import pytest

from gateway.access.tokens import TokenTable, hash_token
from gateway.access.tokens_file import TokenEntry
from gateway.api.playground import description
from tests.support.fake_triton import FakeTriton
from tests.support.harness import ACCOUNT, RUN, TOKEN, Answer, Client, running_gateway, settings_for, until
from tests.support.worker_processes import Supervised, supervised_gateway

BODY = b'{"text":"a"}'
VERIFY = "/client/v4/user/tokens/verify"


def line(token: str, expires: str = "") -> str:
    return f"{ACCOUNT}:{hash_token(token)}{expires}\n"


async def ask(client: Client, token: str, path: str = RUN) -> Answer:
    method, body = ("POST", BODY) if path == RUN else ("GET", None)
    return await client.send(method, path, body, {"Authorization": f"Bearer {token}"})


async def status(client: Client, token: str) -> int:
    return (await ask(client, token)).status


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(line("old"))
    return file


async def test_a_new_token_is_good_and_a_revoked_one_is_not_within_moments(
    triton: FakeTriton, file: Path
) -> None:
    async with running_gateway(settings_for(triton, tokens_file=file)) as running:
        client = running.client
        assert (await status(client, "old"), await status(client, "new")) == (200, 401)
        file.write_text(line("new"))

        async def rotated() -> bool:
            return await status(client, "new") == 200

        await until(rotated, 3)
        assert await status(client, "old") == 401
        assert await status(client, TOKEN) == 200  # that of the environment stays


async def test_a_malformed_file_keeps_the_tokens_and_is_one_line_in_the_log(
    triton: FakeTriton, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_gateway(settings_for(triton, tokens_file=file)) as running:
        file.write_text(line("new") + "a-plain-token-by-mistake\n")

        async def complained() -> bool:
            return "The content that was read before stays in force" in caplog.text

        await until(complained, 3)
        assert (await status(running.client, "old"), await status(running.client, "new")) == (200, 401)
        complaints = [record for record in caplog.records if record.name == "tritonflare.watch"]
        assert len(complaints) == 1
        assert "Line 2 of" in complaints[0].getMessage()
        assert "plain" not in caplog.text


async def test_when_the_last_token_is_revoked_no_request_is_accepted(
    triton: FakeTriton, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tritonflare"):
        async with running_gateway(settings_for(triton, tokens_file=file, api_tokens=None)) as running:
            assert await status(running.client, "old") == 200
            file.write_text(line("new"))

            async def opened() -> bool:
                return await status(running.client, "new") == 200

            await until(opened, 3)
            file.write_text("")

            async def closed() -> bool:
                return await status(running.client, "new") == 401

            await until(closed, 3)
    assert "tokens file reloaded: 1 valid token" in caplog.text
    assert "tokens file reloaded: 0 valid tokens" in caplog.text


async def test_an_expired_token_is_10000_and_1000_where_it_asks_for_itself(
    triton: FakeTriton, file: Path
) -> None:
    file.write_text(line("past", ":2020-01-01T00:00:00Z") + line("future", ":2999-12-31T00:00:00Z"))
    async with running_gateway(settings_for(triton, tokens_file=file)) as running:
        client = running.client
        for path, code in ((RUN, 10000), (VERIFY, 1000)):
            answer = await ask(client, "past", path)
            assert (answer.status, answer.error["code"]) == (401, code)
        assert await status(client, "future") == 200
        result = (await ask(client, "future", VERIFY)).json["result"]
        assert (result["status"], result["expires_on"]) == ("active", "2999-12-31T00:00:00Z")
        described = json.loads(description(playground=False))["components"]["schemas"]["TokenState"]
        assert list(described["properties"]) == list(result)
        assert "expires_on" not in (await ask(client, TOKEN, VERIFY)).json["result"]


async def test_a_revoked_token_is_refused_though_its_file_never_stops_changing(
    triton: FakeTriton, file: Path
) -> None:
    file.write_text(line("kept") + line("revoked"))

    async def churn() -> None:
        for number in count():
            new = file.with_name("new")
            new.write_text(line("kept") + line(f"another {number}"))
            new.replace(file)
            await asyncio.sleep(0.1)

    async with running_gateway(settings_for(triton, tokens_file=file)) as running:
        churning = asyncio.create_task(churn())
        try:

            async def refused() -> bool:
                assert await status(running.client, "kept") == 200
                return await status(running.client, "revoked") == 401

            # Ten looks, half a second apart; more on a machine that has no time for them.
            await until(refused, 15)
        finally:
            churning.cancel()


async def test_a_token_is_good_before_its_file_is_there_and_the_file_alone_counts_then(
    triton: FakeTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state" / "tokens"
    settings = settings_for(triton, tokens_file=file, api_tokens=None)
    first = TokenTable([TokenEntry(ACCOUNT, hash_token("first"))])
    async with running_gateway(settings, tokens=first) as running:
        client = running.client
        assert (await status(client, "first"), await status(client, "second")) == (200, 401)
        file.parent.mkdir()
        file.write_text(line("first") + line("second"))

        async def known() -> bool:
            return await status(client, "second") == 200

        await until(known, 5)
        assert await status(client, "first") == 200
        file.write_text(line("second"))

        async def revoked() -> bool:
            return await status(client, "first") == 401

        await until(revoked, 5)
    # A canary that is late on a busy machine is the monitor's news.
    told = [record for record in caplog.records if record.name != "tritonflare.monitor"]
    assert not [record for record in told if record.levelno >= logging.WARNING]


async def test_an_account_that_is_new_has_a_rate_of_its_own(triton: FakeTriton, file: Path) -> None:
    settings = settings_for(triton, tokens_file=file, requests_per_minute=1, max_batch_texts=1)
    async with running_gateway(settings) as running:
        client = running.client
        file.write_text(file.read_text() + f"fresh:{hash_token('fresh')}\n")
        path = RUN.replace(ACCOUNT, "fresh")

        async def known() -> bool:
            return (await client.send("GET", VERIFY, None, {"Authorization": "Bearer fresh"})).status == 200

        await until(known, 3)
        assert await status(client, "old") == 200
        fresh = await client.send("POST", path, BODY, {"Authorization": "Bearer fresh"})
        assert fresh.status == 200
        assert await status(client, "old") == 429


async def test_every_worker_reads_the_file_again(triton: FakeTriton, file: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "run"
    scratch.mkdir()
    async with supervised_gateway(triton, scratch, GATEWAY_TOKENS_FILE=str(file)) as running:
        file.write_text(line("new"))
        client = Client(running.port)

        async def all_know() -> bool:
            # Each is a connection of its own, and the kernel spreads them.
            return {await status(client, "new") for _ in range(16)} == {200}

        await until(all_know, 5)
        assert {await status(client, "old") for _ in range(16)} == {401}


async def _killed_and_replaced(running: Supervised) -> None:
    killed = running.workers[0]
    killed.kill()

    async def replaced() -> bool:
        with suppress(psutil.NoSuchProcess):
            return killed not in running.workers and len([*filter(running.listens, running.workers)]) == 2
        return False

    await until(replaced, 15)


async def test_a_worker_is_replaced_while_the_file_is_broken(
    triton: FakeTriton, file: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "run"
    scratch.mkdir()
    async with supervised_gateway(triton, scratch, GATEWAY_TOKENS_FILE=str(file)) as running:
        client = Client(running.port)

        async def everywhere(token: str, expected: int) -> bool:
            return {await status(client, token) for _ in range(16)} == {expected}

        file.write_text(line("good") + "half a li")
        await _killed_and_replaced(running)
        assert await everywhere("old", 200)
        assert await everywhere("good", 401)
        assert await everywhere("wrong", 401)
        assert running.log.read_text().count("restarting it in") == 1
        file.write_text(line("good"))
        await until(lambda: everywhere("good", 200), 5)
        assert await everywhere("old", 401)


async def test_a_worker_is_replaced_when_no_token_is_good_any_more(
    triton: FakeTriton, file: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "run"
    scratch.mkdir()
    settings = {"GATEWAY_TOKENS_FILE": str(file), "GATEWAY_API_TOKENS": ""}
    async with supervised_gateway(triton, scratch, **settings) as running:
        file.write_text("")
        await _killed_and_replaced(running)
        client = Client(running.port)

        async def closed() -> bool:
            return {await status(client, "old") for _ in range(16)} == {401}

        await until(closed, 5)
        assert running.log.read_text().count("restarting it in") == 1

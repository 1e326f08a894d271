"""The last use of each token: noted by every worker, kept over restarts, and off where it cannot be."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.access.token_uses import TokenUses, UsesError, uses_file
from gateway.access.tokens import hash_token, short_id
from tests.support.fake_triton import FakeTriton
from tests.support.harness import ACCOUNT, RUN, Client, running_gateway, settings_for, until
from tests.support.worker_processes import supervised_gateway
from tritonflare.token import token as command

BODY = b'{"text":"a"}'
IDS = {name: short_id(hash_token(name)) for name in ("first", "second", "idle")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "state" / "tokens"
    file.parent.mkdir()
    file.write_text("".join(f"{ACCOUNT}:{hash_token(name)} # {name}\n" for name in IDS))
    return file


async def ask(client: Client, token: str) -> int:
    return (await client.send("POST", RUN, BODY, {"Authorization": f"Bearer {token}"})).status


async def test_every_worker_notes_uses_and_a_restart_keeps_them(
    triton: FakeTriton, file: Path, tmp_path: Path
) -> None:
    uses, before = TokenUses(uses_file(file)), file.read_bytes()
    began = int(time.time())
    scratch = tmp_path / "run"
    scratch.mkdir()
    async with supervised_gateway(triton, scratch, GATEWAY_TOKENS_FILE=str(file)) as running:
        # Each is a connection of its own, and the kernel spreads them over both workers.
        assert {await ask(Client(running.port), "first") for _ in range(16)} == {200}

        async def noted() -> bool:
            with suppress(UsesError):
                return IDS["first"] in uses.read()
            return False

        await until(noted, 30)
    assert "last use" not in running.log.read_text()
    async with running_gateway(settings_for(triton, tokens_file=file)) as next_run:
        assert await ask(next_run.client, "second") == 200
    used = uses.read()
    assert used.keys() == {IDS["first"], IDS["second"]}
    assert all(began <= moment <= time.time() for moment in used.values())
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["tokens", "tokens.used"]


@pytest.mark.parametrize("folder", ["plain", "x" * 300])
async def test_a_gateway_that_cannot_note_uses_says_so_once_and_serves(
    triton: FakeTriton, file: Path, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    blocked = file.with_name(folder) / "uses"
    file.with_name("plain").write_text("no folder")
    settings = settings_for(triton, tokens_file=file, token_uses_file=blocked)
    with caplog.at_level(logging.INFO, "tritonflare.tokens"):
        async with running_gateway(settings) as running:
            assert await ask(running.client, "first") == 200
    told = [record for record in caplog.records if record.name == "tritonflare.tokens"]
    assert [(record.levelname, "GATEWAY_TOKEN_USES_FILE" in record.getMessage()) for record in told] == [
        ("WARNING", True)
    ]
    listed = CliRunner().invoke(command, ["list", "--file", str(file), "--uses", str(blocked)])
    assert listed.exit_code == 0
    assert listed.stderr == f"The last use is not noted: {blocked} cannot be written.\n"
    assert listed.stdout.count("unknown") == len(IDS)

"""``tritonflare compare`` between two gateways whose models have other opinions."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import re
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.fake_triton import FakeTriton, hold, read_texts
from tests.support.harness import ACCOUNT, Client, running_gateway, settings_for, until
from tests.support.worker_processes import ROOT
from tritonflare.compare import compare


class OpinionatedTriton(FakeTriton):
    """Takes the number at the end of a text for the score of POSITIVE, to a power."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self._power = power

    def _scores(self, request: Any, ensemble: Any) -> Any:
        answer = super()._scores(request, ensemble)
        logits = []
        for text in read_texts(request):
            number = re.search(rb"0\.\d+$", text)
            score = float(number[0]) ** self._power if number else 0.5
            logits += [0.0, math.log(score / (1 - score))]
        answer.raw_output_contents[1] = struct.pack(f"<{len(logits)}f", *logits)
        return answer


@dataclass
class Servers:
    """Two gateways, and what is behind them."""

    urls: tuple[str, str]
    tritons: tuple[OpinionatedTriton, OpinionatedTriton]
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"TOKEN_A": "secret-of-a", "TOKEN_B": "secret-of-b"}

    async def compare(
        self, *arguments: str, urls: Sequence[str] | None = None, environment: dict[str, str] | None = None
    ) -> Result:
        """Run the command in a thread; its journal lies in the folder."""
        given = [
            *(part for url in (self.urls if urls is None else urls) for part in ("--url", url)),
            *("--journal", str(self.folder / "journal")),
            *arguments,
        ]
        env = {"TOKEN": None, **(self.environment if environment is None else environment)}
        return await asyncio.to_thread(CliRunner().invoke, compare, given, env=env)

    def asked(self, side: int) -> list[bytes]:
        return self.tritons[side].texts


@pytest.fixture
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Servers]:
    """Two servers; a parameter limits the requests that each has in flight."""
    limit = getattr(request, "param", 64)
    async with AsyncExitStack() as stack:
        tritons, urls = (OpinionatedTriton(1), OpinionatedTriton(2)), []
        for name, triton in zip("ab", tritons, strict=True):
            await triton.appear()
            stack.push_async_callback(triton.disappear)
            settings = settings_for(
                triton,
                api_tokens=f"{ACCOUNT}:secret-of-{name}",
                max_requests_in_flight=limit,
                max_batch_texts=1,
            )
            running = await stack.enter_async_context(running_gateway(settings))
            urls.append(f"http://127.0.0.1:{running.client.port}")
        yield Servers((urls[0], urls[1]), tritons, tmp_path)


def table(folder: Path, count: int = 99) -> Path:
    file = folder / "texts.csv"
    rows = [f'{number},"film, worth 0.{number:02d}"' for number in range(1, count + 1)]
    file.write_text("\n".join(["id,text", *rows, ""]))
    return file


async def test_two_servers_are_compared_and_a_threshold_is_found(servers: Servers, tmp_path: Path) -> None:
    file, page, data = table(tmp_path), tmp_path / "report.md", tmp_path / "report.json"
    outputs = ["-o", str(page), "-o", str(data)]
    result = await servers.compare(str(file), "--old-threshold", "0.8", *outputs)
    assert result.exit_code == 0, result.output
    assert "99 texts in the column text" in result.stderr
    shown = result.stdout
    # 0.50 to 0.70 is positive at A, and its square negative at B; 0.5 itself is a tie at A.
    assert re.search(r"Same best label: 79 of 99 \(79\.8%; 95 %: 70\.\d% to 86\.\d%\)", shown)
    assert "film, worth 0.58" in shown
    advice = json.loads(data.read_bytes())["figures"]["threshold"]
    assert 0.79**2 < advice["cut"] <= 0.8**2
    assert (advice["positives"]["count"], advice["fitted"]["same"]["count"]) == (20, 99)
    assert (advice["unchanged"]["lost"], advice["unchanged"]["gained"]) == (10, 0)  # 0.80 to 0.89
    written = page.read_text()
    assert f"| {advice['cut']!r}, best on these texts | 99 of 99 " in written
    sides = json.loads(data.read_bytes())["figures"]["sides"]
    for side in sides:
        assert side["answered"] == 99
        assert 0 < side["p50_ms"] <= side["p95_ms"]
    assert "secret" not in shown + written + data.read_text() + result.stderr
    for side in (0, 1):
        assert sorted(servers.asked(side)) == sorted(set(servers.asked(side)))
        assert len(servers.asked(side)) == 99
    assert not (tmp_path / "journal").exists()
    again = await servers.compare("--again", str(data), "--old-threshold", "0.8", urls=())
    assert again.stdout == shown
    assert len(servers.asked(0)) == 99


async def test_a_server_whose_results_have_another_shape_is_compared_too(
    servers: Servers, tmp_path: Path
) -> None:
    settings = settings_for(servers.tritons[1], api_tokens=f"{ACCOUNT}:secret-of-b", result_shape="items")
    async with running_gateway(settings) as running:
        urls = (servers.urls[0], f"http://127.0.0.1:{running.client.port}")
        result = await servers.compare(str(table(tmp_path)), urls=urls)
    assert "Same best label: 79 of 99" in result.stdout


async def test_a_report_that_cannot_be_written_leaves_the_old_one_and_the_answers(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "report.md"
    page.write_text("the old one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = await servers.compare(str(table(tmp_path)), "-o", str(page))
    assert result.exit_code == 1
    assert f"{page} cannot be written: No space left on device" in result.stderr
    assert page.read_text() == "the old one"
    assert (await servers.compare(str(table(tmp_path)), "-o", str(page))).exit_code == 0
    assert "79 of 99" in page.read_text()
    assert len(servers.asked(0)) == 99


async def test_a_rate_is_kept_for_each_server(servers: Servers, tmp_path: Path) -> None:
    began = time.monotonic()
    result = await servers.compare(str(table(tmp_path, 12)), "--rate", "1200", "--rate", "0")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - began >= 11 * 60 / 1200
    assert "at most 1,200" in result.stdout
    assert "not limited here" in result.stdout


@pytest.mark.parametrize("servers", [1], indirect=True)
async def test_a_busy_server_is_asked_again(servers: Servers, tmp_path: Path) -> None:
    busy = asyncio.Event()
    servers.tritons[0].infer_fault = hold(busy)
    comparing = asyncio.create_task(servers.compare(str(table(tmp_path, 5)), "-o", str(tmp_path / "r.json")))
    port = int(servers.urls[0].rpartition(":")[2])

    async def has_refused() -> bool:
        return b'code="3040"' in (await Client(port).get("/metrics")).body

    try:
        await until(has_refused, 4)
    finally:
        busy.set()
    result = await comparing
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "r.json").read_bytes())["figures"]
    assert [(side["answered"], side["failed"]) for side in figures["sides"]] == [(5, {}), (5, {})]


async def test_a_stray_quote_is_refused_unless_quotes_are_plain(servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text\n"film 0.1\nb 0.2\nc "0.3\n')
    result = await servers.compare(str(file))
    assert result.exit_code == 1
    assert "add --quoting none" in result.stderr
    assert servers.asked(0) == []
    result = await servers.compare(str(file), "--quoting", "none")
    assert result.exit_code == 0, result.output
    assert sorted(servers.asked(0)) == [b'"film 0.1', b"b 0.2", b'c "0.3']


async def test_old_scores_take_the_place_of_a_server(servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    rows = [f"film worth 0.{number:02d},0.{number:02d}" for number in range(1, 100)]
    file.write_text("\n".join(["text,old", *rows]))
    arguments = (str(file), "--old-scores", "old", "--old-threshold", "0.8")
    result = await servers.compare(
        *arguments, urls=servers.urls[1:], environment={"TOKEN": "secret-of-b", "TOKEN_B": ""}
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"Best threshold at B: 0\.6[34]", result.stdout)
    assert "Same best label" not in result.stdout  # a score of one label has none
    assert servers.asked(0) == []


async def test_a_comparison_that_is_killed_and_interrupted_asks_nothing_twice(
    servers: Servers, tmp_path: Path
) -> None:
    file = table(tmp_path)
    command = [sys.executable, "-m", "tritonflare", "compare", str(file), "--connections", "2"]
    command += ["--journal", str(tmp_path / "journal")]
    command += [part for url in servers.urls for part in ("--url", url)]
    environment = {**os.environ, **servers.environment, "PYTHONPATH": str(ROOT)}
    asked = 0
    for number, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        # Slowly enough to be caught.
        process = Popen([*command, "--rate", "600"], env=environment, cwd=tmp_path, stderr=PIPE)
        asked += 5

        async def has_asked(enough: int = asked) -> bool:
            return min(len(servers.asked(0)), len(servers.asked(1))) >= enough

        await until(has_asked, 30)
        process.send_signal(number)
        _, stderr = await asyncio.to_thread(process.communicate, timeout=20)
        assert process.returncode == status
    assert b"Run the same again" in stderr
    assert b"Traceback" not in stderr
    result = await servers.compare(str(file))
    assert "79 of 99" in result.stdout
    for side in (0, 1):
        assert len(set(servers.asked(side))) == 99
        # Those that were under way when it ended: two for each of two ends.
        assert len(servers.asked(side)) <= 99 + 4
    assert [path.name for path in tmp_path.iterdir()] == ["texts.csv"]


async def test_a_wrong_token_is_named_by_its_variable_and_answers_are_kept(
    servers: Servers, tmp_path: Path
) -> None:
    wrong = {"TOKEN_A": "secret-of-a", "TOKEN_B": "secret-of-a"}
    result = await servers.compare(str(table(tmp_path)), environment=wrong)
    assert result.exit_code == 1
    assert "Authentication error; is TOKEN_B set to a token of this server?" in result.stderr
    assert servers.urls[1] in result.stderr
    assert "secret" not in result.output


async def test_a_threshold_that_cannot_be_judged_costs_no_answers(servers: Servers, tmp_path: Path) -> None:
    file, data = table(tmp_path), tmp_path / "report.json"
    for arguments in (["--old-threshold", "0.8", "--label", "good"], ["--old-threshold", "0.8"]):
        result = await servers.compare(str(file), *arguments, "-o", str(data))
        assert "Same best label: 79 of 99" in result.stdout
        assert data.exists()
        assert result.exit_code == (1 if "good" in arguments else 0)
    assert "Best threshold" in result.stdout
    assert len(servers.asked(0)) == 99


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--url", "http://a", "--url", "http://b"], {"TOKEN": "t"}, "set TOKEN_A to a token of server A"),
        (["--url", "http://a", "--url", "http://a"], {}, "set TOKEN_A or TOKEN to a token of server A"),
        (["--url", "http://a"], {"TOKEN": "t"}, "give --url twice"),
        (["--url", "a", "--url", "b"], {"TOKEN": "t"}, "write it like http://127.0.0.1:8787"),
        (["--url", "http://me:pw@a", "--url", "http://a"], {"TOKEN": "t"}, "write it like"),
        (["--url", "http://a", "--url", "http://[::1"], {"TOKEN_A": "t"}, "write it like"),
        (["--old-scores", "old"], {"TOKEN": "t"}, "give --url once: B"),
        (["-o", "report.txt"], {}, "ends neither with .md nor with .json"),
        (["-o", "none/report.md"], {}, "cannot be written"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_asked(
    arguments: list[str], environment: dict[str, str], reason: str, tmp_path: Path
) -> None:
    env = {"TOKEN": None, "TOKEN_A": None, "TOKEN_B": None, **environment}
    result = CliRunner().invoke(compare, [str(table(tmp_path)), *arguments], env=env)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert "pw" not in result.stderr


def test_an_address_may_name_the_account() -> None:
    from tritonflare.compare import _ACCOUNT_PATH

    for tail in ("", "/", "/ai", "/ai/run/"):
        found = _ACCOUNT_PATH.fullmatch(f"https://api.cloudflare.com/client/v4/accounts/0a1b{tail}")
        assert found is not None
        assert (found["root"], found["account"]) == ("https://api.cloudflare.com", "0a1b")
    assert _ACCOUNT_PATH.fullmatch("http://127.0.0.1:8787/client/v4") is None

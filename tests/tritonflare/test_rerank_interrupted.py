"""``tritonflare rerank`` after a kill, and with pairs that are longer than the model reads."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from tests.bulk.file_check import journal_numbers
from tests.support.fake_triton import reranker
from tests.support.files_of_texts import read_csv
from tests.support.gateway_process import gateway_before_fake
from tests.support.harness import ANY_TOKEN
from tritonflare.main import cli

ROWS = 1000


def test_a_run_that_is_killed_ends_with_the_same_bytes_and_says_which_pairs_were_cut(tmp_path: Path) -> None:
    path, output = tmp_path / "pairs.csv", tmp_path / "pairs.reranked.csv"
    journal = tmp_path / "pairs.reranked.csv.journal"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("query", "document"))
        writer.writerows(
            (f"who bakes {n // 2}", f"{n} bakes " + "bread " * (99 if n % 2 else 1)) for n in range(ROWS)
        )
    environment = os.environ | {"TOKEN": ANY_TOKEN}
    with gateway_before_fake(tmp_path / "log", reranker(max_tokens=32)) as port:
        command = [
            sys.executable,
            "-m",
            "tritonflare",
            "rerank",
            str(path),
            "--url",
            f"http://127.0.0.1:{port}",
        ]

        def whole() -> tuple[int, str]:
            done = CliRunner().invoke(cli, command[3:], env={"TOKEN": ANY_TOKEN})
            return done.exit_code, done.stderr

        assert whole()[0] == 0
        expected = output.read_bytes()
        output.unlink()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while len(journal_numbers(journal)) < 20 and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists()
        assert 20 <= len(journal_numbers(journal)) < ROWS
        status, said = whole()
    assert status == 0, said
    assert "continuing with" in said
    assert output.read_bytes() == expected
    assert not journal.exists()
    _, *rows = read_csv(output, "utf-8")
    assert [row[3] for row in rows] == ["false", "true"] * (ROWS // 2)
    assert len({row[2] for row in rows}) > 1

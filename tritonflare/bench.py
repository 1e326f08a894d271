"""``tritonflare bench``: the model in-process against the same model through Triton and the gateway."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tritonflare.paths import CHECKPOINT, REPOSITORY
from tritonflare.progress import progress

_MODEL = "@cf/huggingface/distilbert-sst-2-int8"
_TOKEN = "bench"  # noqa: S105 (opens a loopback server that lives as long as the bench)


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=5.0,
    show_default=True,
    help="Length of each measurement.",
)
@click.option("--connections", default="1,8,32", show_default=True, help="Comma-separated.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures here.")
def bench(repository: Path, rounds: int, seconds: float, connections: str, json_file: Path | None) -> None:
    """Measure the served bundled model in-process, then over HTTP, in alternating rounds.

    Starts its own Triton and gateway on free loopback ports. Quote medians and shares of the
    ceiling, and only from a machine that is doing nothing else.
    """
    from export.errors import ExportError
    from export.repository.inventory import read_inventory
    from loadtest.bench import InProcess, Target, as_table, read_sentences, run_bench

    texts = read_sentences(CHECKPOINT / "heldout.tsv")
    try:
        models = {model.name: model for model in read_inventory(repository)}
    except ExportError:
        models = {}
    model = models.get(_MODEL)
    if model is None or not model.served_file(repository, model.encoder).is_file():
        raise click.ClickException(f"{repository} holds no bundled model; run `make export`.")
    encoder, tokenizer = (model.served_file(repository, step) for step in (model.encoder, model.tokenizer))
    local = InProcess(encoder, tokenizer, texts)
    path = f"/client/v4/accounts/bench/ai/run/{_MODEL}"
    with _server(repository) as port, progress("measuring") as step:
        counts = [int(count) for count in connections.split(",")]
        target = Target("127.0.0.1", port, path, _TOKEN)
        rows = run_bench(local, target, texts, counts, rounds=rounds, seconds=seconds, step=step)
    table = Table(
        "", "texts/s", "of ceiling", "p50 ms", "p99 ms", title=f"medians of {rounds} rounds of {seconds:g} s"
    )
    for row in as_table(rows):
        cells = (
            f"{row['rate']:.0f}",
            f"{row['of_ceiling']:.2f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
        )
        table.add_row(row["name"], *(cell.replace("nan", "–") for cell in cells))
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(as_table(rows), indent=2) + "\n", encoding="utf-8")


@contextmanager
def _server(repository: Path) -> Iterator[int]:
    """``tritonflare serve`` in a process of its own, as it runs for its users; gives its port."""
    command = [sys.executable, "-m", "tritonflare", "serve", "--port", "0", "--repository", str(repository)]
    settings = {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_API_TOKENS": f"bench:{_TOKEN}",
        "GATEWAY_LOG_LEVEL": "warning",
    }
    with subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                if found := re.match(r"Ready: http://127\.0\.0\.1:(\d+)/", line):
                    yield int(found[1])
                    break
            else:
                raise click.ClickException("the server did not start; see the message above.")
        finally:
            process.send_signal(signal.SIGTERM)

"""``python -m tools.gpu_check``: prove on this machine, without a network, what documents say of GPUs."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import click

from tools.gpu_check.job import PASSED, SKIPPED, CheckFailed, Settings
from tools.gpu_check.machine import AUTO, choose_device
from tools.gpu_check.page import as_document, as_markdown, failed
from tools.gpu_check.plan import MINUTES, SHORT_MINUTES
from tools.gpu_check.runner import run_checks
from tritonflare.bench_common import end_in_order, write_json
from tritonflare.progress import progress


@click.command()
@click.option(
    "--device",
    type=click.Choice((AUTO, "cuda", "cpu")),
    default=AUTO,
    show_default=True,
    help="auto is cuda where NVML finds a GPU, and cpu where there is no driver. On the CPU the same "
    "programs are tried; no GPU is proven.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.2),
    help=f"Everything ends within this time [default: {MINUTES:g}, with --short {SHORT_MINUTES:g}].",
)
@click.option("--short", is_flag=True, help="Few texts and loads, for a first look.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".cache/gpu-check"),
    show_default=True,
    help="Folder for gpu-check.json, gpu-check.md, and the logs of checks that did not pass.",
)
def main(device: str, minutes: float | None, short: bool, output: Path) -> None:
    """Run all checks, and write what they found.

    On a GPU, one check takes nearly all of its free memory for some seconds: run nothing else on it.

    Exits 1 if a check failed or ran out of time. A failed check does not end the others.
    """
    end_in_order()
    began = time.monotonic()
    try:
        device = choose_device(device)
    except CheckFailed as problem:
        raise click.ClickException(str(problem)) from problem
    seconds = 60 * (minutes or (SHORT_MINUTES if short else MINUTES))
    output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="tritonflare_gpu_check_") as work,
        progress(f"checking {device}") as steps,
    ):
        settings = Settings(device, short, Path(work))
        results = run_checks(settings, seconds - (time.monotonic() - began), steps)
        for result in results:
            log = settings.work / f"{result['name']}.log"
            if result["status"] not in (PASSED, SKIPPED) and log.exists():
                shutil.copyfile(log, output / log.name)
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    document = as_document(device, short, time.monotonic() - began, day, results)
    write_json(output / "gpu-check.json", document)
    (output / "gpu-check.md").write_text(as_markdown(document), encoding="utf-8")
    for result in results:
        click.echo(f"{result['status']:12} {result['title']}: {result['found']}")
    click.echo(f"Written: {output}/gpu-check.json and gpu-check.md, in {document['seconds']:.0f} s.")
    sys.exit(1 if failed(document) else 0)


if __name__ == "__main__":
    main()

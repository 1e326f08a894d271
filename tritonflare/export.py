"""``tritonflare export``: a checkpoint becomes a served model."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from tritonflare.paths import ARTEFACTS, CHECKPOINT, REPOSITORY
from tritonflare.progress import progress

_PRECISIONS = click.Choice(["fp32", "fp16", "int8"])


@click.command()
@click.argument("source", type=click.Path(path_type=Path), default=CHECKPOINT)
@click.option("--name", help="Public name, e.g. @cf/acme/mood; default: the checkpoint's tritonflare.json.")
@click.option("--precision", type=_PRECISIONS, default="int8", show_default=True, help="Which one is served.")
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, show_default=True)
@click.option(
    "--artefacts",
    type=click.Path(path_type=Path),
    default=ARTEFACTS,
    show_default=True,
    help="Where the ONNX files of all precisions are kept.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what each verification found.")
def export(
    source: Path, name: str | None, precision: str, repository: Path, artefacts: Path, verbose: bool
) -> None:
    """Turn the Hugging Face folder SOURCE into a model that Triton serves.

    Writes FP32, FP16 and INT8 ONNX files, compares each with its reference on mixed lengths
    and padded batches, and replaces the model in the repository in one step. Without SOURCE
    it exports the bundled checkpoint.

    Exit codes: 0 published; 2 the checkpoint or the repository will not do; 3 a comparison
    failed. After 2 and 3 the repository is as it was.
    """
    from export.errors import ExportError
    from export.run import ExportPlan, run_export

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    try:
        plan = ExportPlan(source, repository, artefacts, served=precision, name=name)
        with progress("exporting") as step:
            result = run_export(plan, step)
    except ExportError as error:
        click.echo(f"tritonflare export: {error}", err=True)
        sys.exit(error.exit_code)
    for made, found in result.evaluation.measurements.items():
        right = f"{100 * found.accuracy.share:.2f} % right" if found.accuracy else "accuracy not measured"
        speed = f"  {found.speed.grouped_ratio:.2f} × speed" if found.speed else ""
        click.echo(
            f"{made}  {found.size / 1e6:5.1f} MB  {right}  agreement {100 * found.agreement.share:.2f} %  "
            f"neighbours move it by {found.invariance.largest_shift:.1e}{speed}"
        )
    click.echo(f"The report is {result.report}.")
    click.echo(
        f"Published {result.model.name} ({precision}) in {repository}; a running server must be restarted."
    )

"""``tritonflare export``: a checkpoint becomes a served model."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from export.repository.versions import KEEP
from tritonflare import export_published
from tritonflare.export_judging import judging, judging_options
from tritonflare.export_published import SERVE_HELP
from tritonflare.export_shown import show, show_reading, warn
from tritonflare.paths import ARTEFACTS, CHECKPOINT, REPOSITORY, runnable
from tritonflare.progress import progress

if TYPE_CHECKING:
    from export.plan import ExportPlan

# Repeated here, because `tritonflare --help` must not import ONNX; a test compares them with export.plan.
TARGETS = ("cpu", "cuda", "onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")
LAYOUTS = ("steps", "joined")
INT8 = ("token", "static-minmax", "static-percentile", "static-entropy", "static-smoothed", "blocks", "auto")
_OPTIONS = "--options="
_log = logging.getLogger("tritonflare.export")


def _path(exists: bool = False) -> click.Path:
    return click.Path(path_type=Path, exists=exists)


class _WithOptions(click.Command):
    """A command that takes more of its options in one argument, as a list of arguments has no empty place."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the words of every ``--options=WORDS`` into its place; none if it is empty.

        Raises:
            click.UsageError: a quotation mark is not closed.
        """
        words: list[str] = []
        for arg in args:
            try:
                given = arg.startswith(_OPTIONS)
                words += shlex.split(arg.removeprefix(_OPTIONS)) if given else [arg]
            except ValueError as error:
                raise click.UsageError(f"--options cannot be read ({error}).", ctx) from error
        return super().parse_args(ctx, words)


def _refuse_words(_context: click.Context, _option: click.Parameter, words: str | None) -> None:
    """Only what `_WithOptions` has not taken comes here."""
    if words is not None:
        raise click.BadParameter("write it once, with an equals sign: --options='--keep 5'.")


@click.command(cls=_WithOptions)
@click.argument("source", default=str(CHECKPOINT))
@click.option(
    "--name",
    # Empty if docker-compose.yml passes an unset variable.
    callback=lambda _context, _option, name: name or None,
    help="Public name, e.g. @cf/acme/mood [default: that of the checkpoint's tritonflare.json, else "
    "@local/ and the folder's name].",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    help="Another public name of the model; may be given several times.",
)
@click.option(
    "--revision",
    callback=lambda _context, _option, revision: revision or None,
    help="Branch, tag or commit of a hub id.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="cpu",
    show_default=True,
    help="What runs the encoder: ONNX Runtime in Triton's python backend, on a CPU or with CUDA; Triton's "
    "ONNX Runtime backend on a GPU; or a TensorRT plan that is built where it is served.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="The one to publish [default: int8 on cpu, fp16 on a GPU].",
)
@click.option(
    "--int8",
    type=click.Choice(INT8),
    default="token",
    show_default=True,
    help="How INT8 multiplies; auto measures all of them here and takes the fastest that passes the gate.",
)
@click.option(
    "--instances",
    type=click.IntRange(1),
    help="Copies of the encoder, on a GPU for each GPU [1 on cpu and cuda, else 2].",
)
@click.option(
    "--group-texts",
    type=click.IntRange(1),
    help="Most texts that the target cuda computes together [64; not measured on a GPU yet, "
    "tools.gpu_check measures].",
)
@click.option(
    "--group-tokens",
    type=click.IntRange(1),
    help="Most tokens that the target cuda computes together, padding included [16384; not measured on a "
    "GPU yet, tools.gpu_check measures].",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="steps",
    show_default=True,
    help="Tokenizer and encoder as two steps inside Triton, or joined in one, for the target cpu only.",
)
@click.option(
    "--portable",
    is_flag=True,
    help="INT8 weights use half their range, as on a CPU without VNNI: for a model that other CPUs serve.",
)
@judging_options
@click.option(
    "--quick", is_flag=True, help="Only the published precision, without timing; the gate is the same."
)
@click.option(
    "--if-changed",
    is_flag=True,
    help="Do nothing, in about a second, if SOURCE, all options and this exporter are those of the last "
    "publication, and its files are intact: for each start of a container.",
)
@click.option(
    "--repository", type=_path(), default=REPOSITORY, show_default=True, help="Model repository of Triton."
)
@click.option(
    "--artefacts",
    type=_path(),
    default=ARTEFACTS,
    show_default=True,
    help="Folder for the ONNX files of all precisions and the report.",
)
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=KEEP,
    show_default=True,
    help="Versions of the model that are kept beside the published one, for --rollback.",
)
@click.option("--list", "listing", is_flag=True, help="List the published models, and exit.")
@click.option(
    "--rollback", metavar="NAME", help="Publish the version before the present one again, and exit."
)
@click.option(
    "--to", "number", type=click.IntRange(1), help="Which version --rollback publishes; see --list."
)
@click.option(
    "--remove", metavar="NAME", help="Remove a published model, its kept versions and artefacts, and exit."
)
@click.option(
    "--verify", "verifying", is_flag=True, help="Check the SHA-256 of all published files, and exit."
)
@click.option(
    "--options",
    metavar="OPTIONS",
    expose_value=False,
    callback=_refuse_words,
    help="More options in one argument after an equals sign, quoted as in a shell; may be empty: for "
    "EXPORT_OPTIONS of the Compose files.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Log the result of each verification, and the traceback of an error.",
)
def export(
    listing: bool,
    remove: str | None,
    rollback: str | None,
    number: int | None,
    verifying: bool,
    verbose: bool,
    repository: Path,
    **options: Any,
) -> None:
    """Turn SOURCE into a model that Triton serves.

    SOURCE is a Hugging Face folder or a hub id such as org/name; without it, the bundled
    checkpoint. Writes FP32, FP16 and INT8 ONNX files, compares FP32 with a reference and the
    others with FP32, measures accuracy, agreement and speed, writes report.md and report.html
    beside the artefacts, and publishes the model in one step if it passes the gate.

    \b
      tritonflare export                                     the bundled model, in INT8
      tritonflare export ./mood --name @cf/acme/mood         your own
      tritonflare export org/name --eval reviews.csv         from the hub, judged on your texts
      tritonflare export ./mood --labels bad,neutral,good    names for LABEL_0, LABEL_1, LABEL_2
      tritonflare export ./mood --target cuda                for a GPU, without Docker
      tritonflare export ./mood --target tensorrt            a plan, built on the GPU that serves it
      tritonflare export ./mood --if-changed                 only if something changed since
      tritonflare export --rollback @cf/acme/mood            the version before it
      tritonflare export --list

    Exit codes: 0 published, perhaps with a warning, or unchanged; 2 the checkpoint or the
    repository cannot be used; 3 the gate or a comparison failed, or --verify found a difference.
    After 2 and 3 the repository is as it was.
    """  # noqa: D301 (\b keeps click from joining the lines)
    from export.errors import ExportError
    from tritonflare.export_list import list_models

    if listing + verifying + (remove is not None) + (rollback is not None) > 1:
        raise click.UsageError("use only one of --list, --verify, --rollback and --remove.")
    if number is not None and rollback is None:
        raise click.UsageError("--to says which version --rollback NAME publishes.")
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    try:
        with _export_errors():
            if listing:
                list_models(repository)
            elif remove is not None:
                export_published.remove(repository, options["artefacts"], remove)
            elif rollback is not None:
                export_published.roll_back(repository, rollback, number)
            elif verifying:
                export_published.verify(repository)
            else:
                _export(repository, **options)
    except ExportError as error:
        if error.__cause__ is not None:
            _log.info("caused by:", exc_info=error.__cause__)
        click.echo(f"tritonflare export: {runnable(str(error))}", err=True)
        sys.exit(error.exit_code)


@contextmanager
def _export_errors() -> Iterator[None]:
    """Turn every error into an ExportError with a remedy; --verbose logs its cause."""
    from export.errors import ExportError, first_line

    try:
        yield
    except (ExportError, click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise
    except ModuleNotFoundError as error:
        raise ExportError(
            f"exporting needs {error.name}, which is not installed: .venv/bin/pip install -e '.[export]'."
        ) from error
    except OSError as error:
        raise ExportError(f"{error.strerror or first_line(error)}.") from error
    except Exception as error:
        raise ExportError(
            f"unexpected error ({type(error).__name__}: {first_line(error)}); --verbose shows its traceback."
        ) from error


def _export(
    repository: Path,
    quick: bool,
    if_changed: bool,
    **options: Any,
) -> None:
    from export.evaluation.settings import TimingSettings
    from export.plan import ExportPlan

    timing = None if quick else TimingSettings()
    plan = ExportPlan(repository=repository, timing=timing, all_precisions=not quick, **judging(**options))
    if if_changed and _is_unchanged(plan):
        return
    # After the comparison, because it imports ONNX Runtime.
    from export.run import run_export

    with progress("exporting") as steps:
        result = run_export(plan, steps)
    show(result)
    if options["examples"] is not None:
        show_reading(result.model.labels, result.evaluation.examples)
    if result.model.task == "rerank":
        click.echo("Task rerank, because the model has one label: it scores a TEXT for a QUERY.")
    click.echo(
        f"Published {result.model.name} ({result.artefact}, version {result.model.version}) in {repository}. "
        f"Report: {result.report}, and the same as a page beside it, {result.report.stem}.html"
    )
    click.echo(SERVE_HELP)
    if result.kit:
        click.echo(
            "The TensorRT plan is built where it is served, by docker/triton/build_plans.py from "
            f"{result.kit}; until then Triton's ONNX Runtime backend serves."
        )
    warn(result, repository)


def _is_unchanged(plan: ExportPlan) -> bool:
    """Print whether an export would repeat the last one, and if not, why."""
    from export.record import ExportNeeded, unchanged_export

    try:
        record = unchanged_export(plan)
    except ExportNeeded as needed:
        click.echo(f"Exporting: {needed}.")
        return False
    if record.pinned:
        click.echo(
            f"unchanged: {record.name} stays at version {record.pinned}, which --rollback chose, until its "
            "source or options change; export without --if-changed to publish again."
        )
        return True
    line = f"unchanged: {record.name} version {record.version} is already published in {plan.repository}"
    if record.warnings:
        line += f", with {record.warnings} {'warning' if record.warnings == 1 else 'warnings'} in its report"
    click.echo(f"{line}; export without --if-changed to do it again.")
    return True

"""What the commands that work on files share: options, the server, outputs, summaries, exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click
import uvloop

from tritonflare.device import device_option
from tritonflare.file_journal import finish, identity_of_model, is_complete, open_journal
from tritonflare.file_summary import say, summarise
from tritonflare.own_server import own_gateway, own_triton
from tritonflare.paths import REPOSITORY, runnable
from tritonflare.progress_rows import progress_of_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk.client.http import ApiClient, ServerAddress
    from bulk.client.models import ModelFacts
    from bulk.files import OutputFiles
    from bulk.journal import Journal
    from bulk.tables import ReadOptions, Table
    from bulk.work import Work
    from embedded.supervisor import TritonSupervisor

_T = TypeVar("_T")
STDIN = Path("-")
SOME_FAILED, WRONG, STOPPED, INTERRUPTED = 1, 2, 3, 130


@dataclass(frozen=True)
class Task:
    """What is done with each file."""

    word: str
    """Part of the output's name, such as ``classified``."""
    reranker: bool
    columns: Callable[[Table, str], list[int]]
    """Returns the places of the columns that are read, of a table and its name."""
    work: Callable[[ApiClient, ModelFacts, Table], Coroutine[Any, Any, Work]]


@dataclass(frozen=True)
class FileOptions:
    """The options that all commands on files have."""

    inputs: tuple[Path, ...]
    output: Path | None
    overwrite: bool
    read: ReadOptions
    url: str | None
    token_file: Path | None
    account: str
    ca: Path | None
    model: str | None
    concurrency: int
    repository: Path
    device: str


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one ``FileOptions`` named ``files``."""
    from functools import wraps

    @wraps(command)
    def gathered(**given: Any) -> None:
        from bulk.tables import ReadOptions

        names = ("format", "delimiter", "encoding", "output_encoding", "has_header", "quoting")
        read = ReadOptions(**{name: given.pop(name) for name in names})
        own = {name: given.pop(name) for name in FileOptions.__dataclass_fields__ if name != "read"}
        command(files=FileOptions(read=read, **own), **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def _one_character(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    delimiter = "\t" if value == "\\t" else value
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise click.BadParameter("name one character")
    return delimiter


_OPTIONS = (
    click.argument(
        "inputs",
        nargs=-1,
        required=True,
        metavar="INPUT…",
        type=click.Path(path_type=Path, exists=True, allow_dash=True),
    ),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help="Where the output goes; - is standard output [default: beside the input; of standard input, -].",
    ),
    click.option("--overwrite", is_flag=True, help="Replace an output that exists."),
    click.option(
        "--format",
        type=click.Choice(["csv", "tsv", "jsonl", "parquet", "lines"]),
        help="[default: by the ending; of standard input, jsonl if it begins with {, else lines]",
    ),
    click.option(
        "--delimiter", callback=_one_character, help="Of CSV, one character, \\t for a tab [default: found]."
    ),
    click.option("--encoding", help="Of the input, such as cp1252 [default: found]."),
    click.option("--output-encoding", help="[default: that of the input]"),
    click.option(
        "--header/--no-header",
        "has_header",
        default=True,
        help="Whether the first row of CSV names the columns.",
    ),
    click.option("--quoting", type=click.Choice(["csv", "none"]), help="none: quotes are plain characters."),
    click.option("--url", help="A running server; without it, one is started for this command."),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="File with the token of the running server [default: the environment variable TOKEN].",
    ),
    click.option(
        "--account", envvar="ACCOUNT", default="me", show_default=True, help="Account id [ACCOUNT]."
    ),
    click.option(
        "--ca", type=click.Path(path_type=Path, exists=True), help="Certificates to trust, for https, PEM."
    ),
    click.option("--model", envvar="MODEL", help="Its name [MODEL; default: the only one for the task]."),
    click.option(
        "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests at once."
    ),
    click.option(
        "--repository",
        type=click.Path(path_type=Path),
        default=REPOSITORY,
        show_default=True,
        help="Without --url: the model repository to serve.",
    ),
    device_option,
)


def run_files(task: Task, files: FileOptions) -> None:
    """Do the task for every input, and exit with what came of it: 0, 1, 2, 3 or 130."""
    from bulk.errors import BulkError, Unavailable
    from bulk.run import Interrupted
    from embedded.errors import EmbeddedError

    try:
        outputs = _outputs(task, files)
        if files.url is not None:
            _token(files)
        own = nullcontext(None) if files.url is not None else own_triton(files.repository, files.device)
        with own as triton:
            failed = uvloop.run(_all(task, files, outputs, triton))
    except Interrupted as error:
        say(f"{error}.")
        sys.exit(INTERRUPTED)
    except (BulkError, EmbeddedError) as error:
        say(f"tritonflare: {runnable(str(error).rstrip('.'))}.")
        sys.exit(STOPPED if isinstance(error, Unavailable) else WRONG)
    sys.exit(SOME_FAILED if failed else 0)


def _token(files: FileOptions) -> str:
    """Return the token of the running server. No option takes it: other users would see it in `ps`."""
    from bulk.errors import BulkError

    token = os.environ.get("TOKEN", "")
    if files.token_file is not None:
        try:
            token = files.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BulkError(f"{files.token_file} cannot be read") from error
    if not token:
        raise BulkError("--url needs a token: set TOKEN, or name a file with --token-file")
    return token


def _outputs(task: Task, files: FileOptions) -> list[OutputFiles | None]:
    """Return where each output goes, None for standard output; refuse to replace what exists."""
    from bulk.errors import BulkError
    from bulk.files import OutputFiles

    if files.output is not None and len(files.inputs) > 1:
        raise BulkError("--output is for one input; with several, each output goes beside its input")
    outputs: list[OutputFiles | None] = []
    for path in files.inputs:
        target = files.output or (STDIN if path == STDIN else None)
        if target == STDIN:
            outputs.append(None)
        else:
            outputs.append(OutputFiles(target) if target is not None else OutputFiles.beside(path, task.word))
    named = [output for output in outputs if output is not None]
    if any(output.overwrites(path) for output in named for path in files.inputs if path != STDIN):
        raise BulkError("an output would replace an input; name another with -o")
    if len({output.final.absolute() for output in named}) < len(named):
        raise BulkError("two inputs have the same output")
    for output in outputs:
        if output is None or files.overwrite or output.journal.exists() or not output.final.exists():
            continue
        raise BulkError(f"{output.final} exists; replace it with --overwrite, or name another with -o")
    return outputs


@dataclass(frozen=True)
class _Asked:
    """What all inputs have in common."""

    client: ApiClient
    model: ModelFacts
    identity: dict[str, Any]
    """Of server and model, for journals."""
    stop: asyncio.Event
    journals: list[Path]
    """Of finished inputs. They go together: one alone would make the same command begin its input anew."""
    unanswered: list[Path]
    """Those of them whose rows failed at the server."""


async def _all(
    task: Task, files: FileOptions, outputs: Sequence[OutputFiles | None], triton: TritonSupervisor | None
) -> bool:
    """Return whether any row of any file failed."""
    from bulk.client.http import ApiClient

    stop, failed = asyncio.Event(), False
    async with _server(files, triton, stop) as server:
        ca = None if files.ca is None else str(files.ca)
        async with ApiClient(server, files.concurrency, ca_file=ca) as client:
            model = await _unless_stopped(_model(client, files, task), stop)
            identity = identity_of_model(model, "" if triton is not None else server.base)
            asked = _Asked(client, model, identity, stop, [], [])
            for path, output in zip(files.inputs, outputs, strict=True):
                failed |= await _one(task, files, path, output, asked)
    if asked.unanswered:
        say("Some rows failed at the server: the same command asks about these alone again")
        return failed
    for journal in asked.journals:
        journal.unlink(missing_ok=True)
    return failed


async def _model(client: ApiClient, files: FileOptions, task: Task) -> ModelFacts:
    from bulk.client.models import choose_model, model_version

    model = await choose_model(client, files.model, task.reranker)
    return replace(model, version=await model_version(client, model))


@asynccontextmanager
async def _server(
    files: FileOptions, triton: TritonSupervisor | None, stop: asyncio.Event
) -> AsyncIterator[ServerAddress]:
    from bulk.client.http import ServerAddress

    if triton is not None:
        async with own_gateway(triton, stop) as (url, token, account):
            yield ServerAddress(url, token, account)
        return
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        stop.set()
        for number in signals:  # the second one ends the process
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    yield ServerAddress(files.url or "", _token(files), files.account)


async def _unless_stopped(work: Coroutine[Any, Any, _T], stop: asyncio.Event) -> _T:
    """Return the result, or raise Interrupted as soon as ``stop`` is set: a server may be away for long."""
    from bulk.run import Interrupted

    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Interrupted("interrupted before anything was asked")
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _one(task: Task, files: FileOptions, path: Path, output: OutputFiles | None, asked: _Asked) -> bool:
    from bulk.run import Run
    from bulk.tables import check_ending, open_table

    # In threads, because they may wait for a pipe or read a whole file, and a gateway may run in this loop.
    given = None if path == STDIN else path
    source, table = await asyncio.to_thread(open_table, given, files.read, asked.stop.is_set)
    with source.stream:
        if files.output is not None:
            check_ending(files.output, table)
        columns = task.columns(table, source.name)
        work = await _unless_stopped(task.work(asked.client, asked.model, table), asked.stop)
        taken = [table.columns[place] for place in columns]
        say(f"{source.name}: {table.describe()}; column {' and '.join(taken)}; {asked.model.name}")
        if table.remark is not None:
            say(f"{source.name}: {table.remark}")
        journal, form = None, files.read.output_encoding or ""
        if output is not None and source.size is not None:
            identity = asked.identity | {
                "format": table.describe(),
                "header": files.read.has_header,
                "columns": taken,
                "added columns": list(work.added),
            }
            journal = await asyncio.to_thread(open_journal, output, path, identity, files.overwrite)
            if journal.finished is not None and is_complete(journal, output, form):
                journal.close()
                asked.journals.append(journal.path)
                say(f"{path}: finished before, {output.final} is kept")
                return journal.finished.failed > 0
            if journal.is_resumed:
                say(f"continuing with {journal.path}")
        begun = time.monotonic()
        try:
            with _writing(output) as stream, progress_of_rows(source.name, table.position) as on_rows:
                run = Run(
                    table.records(columns),
                    table.writer(stream, work.added),
                    work,
                    journal,
                    concurrency=files.concurrency,
                    on_progress=lambda summary: on_rows(summary.rows, summary.rows - summary.restored),
                )
                summary = await run(asked.stop)
        except BaseException:
            _say_what_stays(output, journal)
            raise
        if journal is not None:
            finish(journal, summary, form)
            asked.journals.append(journal.path)
            if summary.unanswered:
                asked.unanswered.append(journal.path)
    summarise(source.name, output, summary, time.monotonic() - begun)
    return summary.failed > 0


def _say_what_stays(output: OutputFiles | None, journal: Journal | None) -> None:
    if output is not None and journal is None:
        output.partial.unlink(missing_ok=True)  # nothing continues it
    if journal is not None:
        journal.close()
        say(f"{journal.path} keeps what was answered: run the same command again to continue")


@contextmanager
def _writing(output: OutputFiles | None) -> Iterator[BinaryIO]:
    if output is not None:
        with output.writing() as stream:
            yield stream
        return
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read has what it wanted. Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)

"""``tritonflare compare``: the same texts to two servers, and what differs."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import click

if TYPE_CHECKING:
    from bulk.compare.answers import Answers, Side, SideAnswer
    from bulk.compare.ask import Target
    from bulk.compare.inputs import Inputs
    from bulk.compare.journal import CompareJournal

T = TypeVar("T")

_MODEL = "@cf/huggingface/distilbert-sst-2-int8"
_ACCOUNT = "0123456789abcdef0123456789abcdef"
_CLOUDFLARE = "api.cloudflare.com"
_CLOUDFLARE_PER_MINUTE = 2000.0
"""Requests of this task that Cloudflare's documents allow an account in a minute."""
_NAMES = ("A", "B")
_ACCOUNT_PATH = re.compile(r"(?P<root>.*?)(?:/client/v4)?/accounts/(?P<account>[^/]+)(?:/ai(?:/run)?)?/*")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="A server; give two, side A first. It may name the account: "
    "https://api.cloudflare.com/client/v4/accounts/ID.",
)
@click.option("--model", "models", multiple=True, help=f"Its model, once for both or twice [{_MODEL}].")
@click.option("--account", "accounts", multiple=True, help="Account, once for both or twice.")
@click.option(
    "--rate",
    "rates",
    type=click.FloatRange(min=0),
    multiple=True,
    help="Most requests a minute, once for both or twice; 0 is no limit [Cloudflare: 2000, others: 0].",
)
@click.option(
    "--connections", type=click.IntRange(1, 256), default=4, show_default=True, help="To each server."
)
@click.option("--column", help="Column of the texts [found by its name].")
@click.option("--format", "kind", type=click.Choice(["csv", "tsv", "jsonl", "parquet", "lines"]))
@click.option("--encoding", help="Of FILE [found].")
@click.option(
    "--quoting", type=click.Choice(["csv", "none"]), help="none: quotes in FILE are plain characters."
)
@click.option(
    "--sample", type=click.IntRange(min=1), help="Ask about so many of the texts, chosen at random."
)
@click.option("--old-scores", metavar="COLUMN", help="Take side A from a column of FILE; give one --url.")
@click.option(
    "--old-threshold",
    type=click.FloatRange(0, 1),
    help="Your threshold on A's scores: which one on B's keeps most decisions?",
)
@click.option("--label", help="The label that has the threshold [POSITIVE, or the last of two].")
@click.option("--show", type=click.IntRange(min=0), default=20, show_default=True, help="Differing texts.")
@click.option(
    "-o",
    "--output",
    "outputs",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Write a report: .md, or .json with all answers. May be repeated.",
)
@click.option(
    "--again",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Take the answers of an earlier report in JSON, and ask nobody.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where answers are kept until the report is written [FILE's name with .compare behind it, here].",
)
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Certificates to trust, PEM.")
def compare(
    file: Path | None,
    urls: tuple[str, ...],
    again: Path | None,
    outputs: tuple[Path, ...],
    label: str | None,
    old_threshold: float | None,
    show: int,
    **asking: Any,
) -> None:
    """Ask two servers about the texts of FILE, and show how labels, scores and latency differ.

    Tokens come from the environment, TOKEN_A for the first URL and TOKEN_B for the second; if both URLs have
    the same host, TOKEN will do. Each server is asked one text a request, no faster than --rate, and again
    when it answers 429. When this is interrupted, the same command goes on where it was.
    """
    from bulk.errors import BulkError

    _check_outputs(outputs)
    try:
        if again is not None:
            if file is not None or urls:
                raise click.UsageError("--again takes the place of FILE and --url")
            from bulk.compare.answers import load_answers

            _report(load_answers(again), label, old_threshold, show, outputs)
            return
        if file is None:
            raise click.UsageError("give FILE, and --url twice")
        _compare(
            file,
            Asking(urls=urls, label=label or "POSITIVE", **asking),
            lambda answers: _report(answers, label, old_threshold, show, outputs),
        )
    except BulkError as error:
        raise click.ClickException(f"{error}.") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """Whom to ask about what; see the options of the same names."""

    urls: tuple[str, ...]
    models: tuple[str, ...]
    accounts: tuple[str, ...]
    rates: tuple[float, ...]
    connections: int
    column: str | None
    kind: str | None
    encoding: str | None
    quoting: str | None
    sample: int | None
    old_scores: str | None
    label: str
    journal: Path | None
    ca: str | None


def _compare(file: Path, asking: Asking, report: Callable[[Answers], None]) -> None:
    """Ask what is missing, and report.

    Raises:
        BulkError: the file cannot be read, or a server gives no answers.
    """
    from bulk.compare.answers import Side, SideAnswer
    from bulk.compare.inputs import read_inputs
    from bulk.compare.journal import CompareJournal
    from bulk.tables import ReadOptions

    targets = _targets(asking)
    options = ReadOptions(asking.kind, encoding=asking.encoding, quoting=asking.quoting)
    inputs = read_inputs(file, options, asking.column, asking.old_scores, asking.sample)
    click.echo(
        f"{file}: {inputs.description}; {len(inputs.texts):,} texts in the column {inputs.column}", err=True
    )
    sides = [target.side for target in targets]
    if asking.old_scores is not None:
        sides.insert(0, Side("A", f"column {asking.old_scores}"))
    path = asking.journal or Path(f"{file.name}.compare")
    with CompareJournal(path, sides, inputs.texts) as kept:
        _ask(targets, inputs, kept)
        scores = enumerate(inputs.old_scores)
        old = {place: SideAnswer((asking.label,), (score,)) for place, score in scores}
        report(_answers((sides[0], sides[1]), inputs, (old or kept.answers[0], kept.answers[1])))
        kept.remove()


def _ask(targets: Sequence[Target], inputs: Inputs, journal: CompareJournal) -> None:
    """Ask with progress on a terminal; end the program where that is interrupted."""
    from bulk.compare.ask import ask_all
    from bulk.errors import ServerError

    total = len(inputs.texts)
    try:
        with _progress(targets, total, [_answered(known) for known in journal.answers]) as advance:
            asyncio.run(ask_all(targets, inputs.texts, journal, advance))
    except KeyboardInterrupt:
        click.echo(f"Interrupted; the answers so far are in {journal.path}. Run the same again.", err=True)
        sys.exit(130)
    except ServerError as error:
        if not any(journal.answers):
            raise
        raise ServerError(
            f"{error}; the answers so far are in {journal.path}, and the same command goes on from there"
        ) from error


def _answered(known: dict[int, SideAnswer]) -> int:
    return sum(not answer.error for answer in known.values())


@contextmanager
def _progress(targets: Sequence[Target], total: int, done: Sequence[int]) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {
            target.number: bars.add_task(target.side.name, total=total, completed=done[target.number])
            for target in targets
        }
        yield lambda side: bars.advance(tasks[side])


def _answers(sides: tuple[Side, Side], inputs: Inputs, known: Sequence[dict[int, SideAnswer]]) -> Answers:
    from bulk.compare.answers import Answers, Pair

    pairs = [
        Pair(row, text, known[0][place], known[1][place])
        for place, (row, text) in enumerate(zip(inputs.rows, inputs.texts, strict=True))
    ]
    return Answers(sides, pairs, inputs.repeated, inputs.empty)


def _report(
    answers: Answers, label: str | None, old_threshold: float | None, show: int, outputs: Sequence[Path]
) -> None:
    """Show and write a report.

    Raises:
        BulkError: the threshold cannot be judged; the rest was shown.
    """
    from bulk.compare.answers import report_json
    from bulk.compare.figures import compute
    from bulk.compare.report import markdown, sections
    from bulk.compare.terminal import print_sections
    from bulk.errors import BulkError
    from bulk.files import OutputFiles

    problem = None
    try:
        figures = compute(answers, label, old_threshold)
    except BulkError as error:
        problem, figures = error, compute(answers)
    found = sections(figures, show)
    print_sections(found)
    for output in outputs:
        content = report_json(answers, figures) if output.suffix == ".json" else markdown(found).encode()
        with OutputFiles(output).writing() as stream:
            stream.write(content)
    if problem is not None:
        raise problem


def _check_outputs(outputs: Sequence[Path]) -> None:
    """Refuse before anything is asked what could not be written after it."""
    for output in outputs:
        if output.suffix not in (".md", ".json"):
            raise click.BadParameter(f"{output} ends neither with .md nor with .json", param_hint="-o")
        if not os.access(output.absolute().parent, os.W_OK | os.X_OK):
            raise click.BadParameter(f"the folder of {output} cannot be written", param_hint="-o")


def _targets(asking: Asking) -> list[Target]:
    """Return whom to ask; a single one is side B.

    Raises:
        click.UsageError: there are too few or too many, or a URL is none, or there is no token.
    """
    from bulk.client.http import ServerAddress
    from bulk.compare.answers import Side
    from bulk.compare.ask import Target

    expected = 2 if asking.old_scores is None else 1
    if len(asking.urls) != expected:
        raise click.UsageError(
            "give --url twice: A and B" if expected == 2 else "with --old-scores, give --url once: B"
        )
    targets = []
    for place, url in enumerate(asking.urls):
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise click.BadParameter("write it like http://127.0.0.1:8787", param_hint="--url")
        path = _ACCOUNT_PATH.fullmatch(url)
        account = _each(asking.accounts, place, _ACCOUNT) if path is None else path["account"]
        default = _CLOUDFLARE_PER_MINUTE if parts.hostname == _CLOUDFLARE else 0.0
        number = place + 2 - expected
        side = Side(
            _NAMES[number],
            url,
            _each(asking.models, place, _MODEL),
            asking.connections,
            _each(asking.rates, place, default),
        )
        variable, token = _token(side.name, asking.urls)
        root = url if path is None else path["root"]
        targets.append(Target(number, side, ServerAddress(root, token, account, variable), asking.ca))
    return targets


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # half of an IPv6 address
        return urlsplit("")


def _each(given: Sequence[T], place: int, default: T) -> T:
    """Return what was given for a side: once for both, or twice."""
    return given[min(place, len(given) - 1)] if given else default


def _token(name: str, urls: Sequence[str]) -> tuple[str, str]:
    """Return the token of a side, behind the variable that has it.

    TOKEN is for one server, and must not reach another.

    Raises:
        click.UsageError: it is not set.
    """
    variables = [f"TOKEN_{name}"]
    if len({_split(url).netloc for url in urls}) == 1:
        variables.append("TOKEN")
    for variable in variables:
        if token := os.environ.get(variable):
            return variable, token
    raise click.UsageError(f"set {' or '.join(variables)} to a token of server {name}")

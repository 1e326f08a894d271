"""``tritonflare bench-timeline``: what one lone text waits for, on its way through all programs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonflare.bench import served_model
from tritonflare.bench_common import end_in_order, environment, print_tables, write_json
from tritonflare.bench_stack import running_gateway
from tritonflare.paths import BENCH, CHECKPOINT, REPOSITORY
from tritonflare.progress import progress

if TYPE_CHECKING:
    from loadtest.client import Target
    from loadtest.timeline.segments import Asked, Mark, TimeLine

_MODELS, _TRACE, _GATEWAY = "models", "trace.json", "gateway.txt"
_WARM_UP = 50
"""Texts before the first that counts."""
_TURN = 25
"""Texts in a row to one repository, before the next has its turn."""


@dataclass
class _Watched:
    """A model whose programs mark their times."""

    target: Target
    steps: Sequence[str]
    folder: Path
    """Holds the copy of the repository, Triton's trace and the gateway's marks."""
    asked: list[Asked] = field(default_factory=list)

    def marks(self) -> Iterator[Mark]:
        """What all programs have marked, once they have ended."""
        from loadtest.timeline import marks
        from loadtest.timeline.triton_trace import trace_marks
        from loadtest.timeline.watched_repository import mark_files

        yield from trace_marks(self.folder / _TRACE, self.steps)
        for file in (self.folder / _GATEWAY, *mark_files(self.folder / _MODELS)):
            yield from marks.read(file)


@click.command("bench-timeline")
@click.option(
    "--repository",
    "repositories",
    type=click.Path(path_type=Path),
    multiple=True,
    default=(REPOSITORY,),
    show_default=True,
    help="Given twice, two repositories are compared.",
)
@click.option("--texts", type=click.IntRange(_TURN), default=500, show_default=True)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=BENCH, show_default=True)
def bench_timeline(repositories: tuple[Path, ...], texts: int, output: Path) -> None:
    """Show what one lone text waits for: gateway, gRPC, Triton, python backend, tokenizer, encoder.

    Starts Triton and a gateway for each repository, on free loopback ports and with clocks in their
    programs, and asks one text after the other. Writes timeline.json and timeline.svg to --output.
    """
    from embedded.errors import EmbeddedError
    from loadtest.client import LoadError
    from loadtest.timeline.picture import draw

    end_in_order()
    try:
        with tempfile.TemporaryDirectory(prefix="tritonflare_bench_") as work:
            lines = _measure(repositories, texts, Path(work))
    except (EmbeddedError, LoadError) as error:
        raise click.ClickException(str(error)) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the time line could not be taken: {error}.") from error
    _print(lines)
    output.mkdir(parents=True, exist_ok=True)
    document = {name: asdict(line) for name, line in lines.items()}
    write_json(output / "timeline.json", {"milliseconds": document, "environment": environment()})
    draw({name: line.segments for name, line in lines.items()}, output / "timeline.svg")
    click.echo(f"Written: {output}/timeline.json and timeline.svg.")


def _measure(repositories: Sequence[Path], texts: int, work: Path) -> dict[str, TimeLine]:
    """The time line of each repository."""
    from loadtest.bench.sentences import read_sentences
    from loadtest.timeline.lone import ask
    from loadtest.timeline.marks import settle
    from loadtest.timeline.segments import time_line

    sentences = cycle(read_sentences(CHECKPOINT / "heldout.tsv"))
    with progress("starting") as steps:
        with ExitStack() as programs:
            watched = {
                str(repository): programs.enter_context(_watched(repository, work / str(number)))
                for number, repository in enumerate(repositories)
            }
            steps.step("asking one text after the other")
            for each in watched.values():
                ask(each.target, list(islice(sentences, _WARM_UP)))
            for done in range(0, texts, _TURN):
                steps.advance(done, texts)
                turn = list(islice(sentences, _TURN))
                for each in watched.values():
                    each.asked += ask(each.target, turn)
            settle()
        return {name: time_line(each.asked, list(each.marks())) for name, each in watched.items()}


@contextmanager
def _watched(repository: Path, folder: Path) -> Iterator[_Watched]:
    from embedded.server import TritonServer
    from loadtest.timeline.triton_trace import trace_options
    from loadtest.timeline.watched_repository import copy_watched

    class TracedServer(TritonServer):
        def command(self, scratch: Path) -> list[str]:
            return [*super().command(scratch), *trace_options(folder / _TRACE)]

    model = served_model(repository)
    folder.mkdir()
    copy_watched(repository, model.folders, folder / _MODELS)
    program = ("tritonflare.watched_gateway", str(folder / _GATEWAY))
    with (
        TracedServer(folder / _MODELS) as triton,
        running_gateway(triton, (model.name,), folder / "gateway.log", program=program) as gateway,
    ):
        yield _Watched(gateway.real, model.steps, folder)


def _print(lines: dict[str, TimeLine]) -> None:
    from loadtest.bench.report import Table
    from loadtest.timeline.segments import SEGMENTS

    rows = [
        [name, *(f"{line.segments[name]:.2f}" if name in line.segments else "" for line in lines.values())]
        for _, name in SEGMENTS
        if any(name in line.segments for line in lines.values())
    ]
    rows.append(["the whole", *(f"{line.whole:.2f}" for line in lines.values())])
    print_tables([Table("One lone text, medians in ms", ("", *lines), rows)])

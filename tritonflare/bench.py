"""``tritonflare bench``: the model in-process against the same model through Triton and the gateway."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonflare.bench_common import Names, Numbers, end_in_order, environment, print_tables, write_json
from tritonflare.bench_gpu import about_device, for_device
from tritonflare.bench_peers import NAMES as PEERS
from tritonflare.bench_peers import about_peers, require_peers, running_peers
from tritonflare.bench_stack import numbers_set, running_stack
from tritonflare.device import device_option
from tritonflare.paths import BENCH, CHECKPOINT, REPOSITORY, runnable
from tritonflare.progress import progress

if TYPE_CHECKING:
    from export.repository.inventory import Published
    from loadtest.bench.report import Table
    from loadtest.bench.run import Files, Plan
    from loadtest.closed_loop import Load

_MODEL = "@cf/huggingface/distilbert-sst-2-int8"
# Spelt out here, because `tritonflare --help` must not wait for ONNX Runtime; a test holds them together.
SECTIONS = ("ceiling", "grpc", "http", "protocols", "null", "precision", "length")
PEERS_SECTION = "peers"
QUICK_SECTIONS = tuple(name for name in SECTIONS if name != "protocols")
_SOAK_CONNECTIONS = 32
_QUICK = {"rounds": 2, "seconds": 1.0}


@dataclass(frozen=True)
class _Outcome:
    """How the results are judged and where they go."""

    output: Path
    against: Path | None
    fail_below: float | None


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, show_default=True)
@click.option(
    "--sections",
    type=Names((*SECTIONS, PEERS_SECTION)),
    help=f"[default: {','.join(SECTIONS)}; with --quick all but protocols]",
)
@click.option(
    "--peers",
    type=Names(PEERS),
    default=(),
    help=f"Other servers to compare with, of {', '.join(PEERS)}: adds the section {PEERS_SECTION}.",
)
@click.option("--rounds", type=click.IntRange(1), help="How often each way is measured [default: 5].")
@click.option("--seconds", type=click.FloatRange(0.1), help="Length of one measurement [default: 3].")
@click.option("--connections", type=Numbers(), default="1,8,32,128", show_default=True)
@click.option(
    "--null-connections", type=Numbers(), default="32,128,256", show_default=True, help="The null model's."
)
@click.option(
    "--workers", type=Numbers(), default="1", show_default=True, help="Gateway processes; each is measured."
)
@click.option(
    "--tokens",
    type=click.IntRange(10, 512),
    help="With --sections peers: texts of about so many tokens instead of sentences.",
)
@click.option("--quick", is_flag=True, help="2 rounds of 1 s: about a minute, for a first look.")
@click.option(
    "--load",
    type=click.Choice(("auto", "wrk", "own")),
    default="auto",
    show_default=True,
    help="Load generator: wrk where it is installed, or our own.",
)
@device_option
@click.option("--soak", type=click.FloatRange(0.05), metavar="MINUTES", help="Instead: does memory grow?")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=BENCH,
    show_default=True,
    help="Folder for bench.json, bench.md and plots.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An earlier bench.json to compare with.",
)
@click.option(
    "--fail-below",
    type=float,
    metavar="SHARE",
    help="Exit 1 if HTTP at 32 connections or more stays below SHARE of the ceiling.",
)
def bench(
    repository: Path,
    sections: tuple[str, ...] | None,
    peers: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    connections: tuple[int, ...],
    null_connections: tuple[int, ...],
    workers: tuple[int, ...],
    tokens: int | None,
    quick: bool,
    load: str,
    device: str,
    soak: float | None,
    output: Path,
    against: Path | None,
    fail_below: float | None,
) -> None:
    """Measure the bundled model in-process, and through Triton and the gateway, in alternating rounds.

    Starts its own Triton and gateways on free loopback ports. Quote medians and shares of the
    ceiling, and only from a machine that is doing nothing else.

    \b
    ceiling     ONNX Runtime in-process on the served file: what the machine can do
    grpc        direct calls to Triton
    http        the gateway; answers are compared with those of the same texts alone
    protocols   the gateway over HTTP and gRPC beside direct calls to Triton, 1 and 32 texts a call
    null        http with an encoder that answers a constant: the cost of serving
    precision   FP32 in-process, to compare with the ceiling
    length      the gateway, texts of 8 to 512 tokens
    peers       the gateway beside other servers of the same files, real and null model (--peers)

    Exits 1 if an answer depended on its neighbours, or on what --fail-below says.
    """  # noqa: D301 (click wants the control character)
    from loadtest.bench.run import Plan

    preset = _QUICK if quick else {"rounds": 5, "seconds": 3.0}
    plan = Plan(
        sections=_with_peers(sections or (QUICK_SECTIONS if quick else SECTIONS), peers, tokens),
        rounds=int(rounds or preset["rounds"]),
        seconds=seconds or preset["seconds"],
        connections=connections,
        null_connections=null_connections,
        workers=workers,
        peers=peers,
        tokens=tokens,
        device=device,
    )
    end_in_order()
    sys.exit(0 if _run(plan, repository, load, _Outcome(output, against, fail_below), soak) else 1)


def _run(plan: Plan, repository: Path, load: str, outcome: _Outcome, soak: float | None) -> bool:
    """Measure the bundled model, or for ``soak`` minutes its memory; tell whether what was found will do."""
    from loadtest.client import LoadError

    model = served_model(repository)
    try:
        with tempfile.TemporaryDirectory(prefix="tritonflare_bench_") as work:
            if soak is not None:
                _soak(plan, repository, model, load, Path(work), outcome, soak)
                return True
            return _measure(plan, repository, model, load, Path(work), outcome)
    except LoadError as error:
        raise click.ClickException(f"{error}.") from error


def _with_peers(sections: tuple[str, ...], peers: tuple[str, ...], tokens: int | None) -> tuple[str, ...]:
    """The sections, with that of the peers if any are given; their environments are there."""
    if tokens is not None and sections != (PEERS_SECTION,):
        # The others are about sentences, and with other texts their figures would be about something else.
        raise click.UsageError(f"--tokens is for --sections {PEERS_SECTION} alone.")
    if not peers and PEERS_SECTION in sections:
        raise click.UsageError(f"--sections {PEERS_SECTION} needs --peers {','.join(PEERS)}, or one of them.")
    if not peers:
        return sections
    require_peers(peers)
    return tuple(dict.fromkeys((*sections, PEERS_SECTION)))


def _measure(
    plan: Plan,
    repository: Path,
    model: Published,
    load: str,
    work: Path,
    outcome: _Outcome,
) -> bool:
    """Run the sections, write and show what was found; tell whether it will do."""
    from loadtest.bench.compare import as_table, read_document
    from loadtest.bench.document import as_document
    from loadtest.bench.plots import write_plots
    from loadtest.bench.report import as_markdown, tables
    from loadtest.bench.run import describe, measure

    earlier = None
    if outcome.against is not None:
        try:
            earlier = read_document(outcome.against)
        except ValueError as error:
            raise click.ClickException(f"{error}.") from error
    plan, on_gpu = for_device(plan, model)
    files, left_out = _files(plan, repository, model, work)
    left_out += on_gpu
    texts = _texts(plan, files)
    generator, name = _load(load, plan.tokens)
    with (
        progress("starting") as steps,
        running_stack(plan, repository, model, work) as stack,
        running_peers(plan.peers, files, model.labels, work) as running,
    ):
        if stack is not None and "null" in plan.sections and stack.one_call_each is None:
            left_out.append("the gateway with one gRPC call a text, which has no setting for it")
        found = measure(plan, texts, generator, files, stack, steps, running)
        machine = environment()
        if stack is not None and stack.gpus is not None:
            machine["gpus"] = stack.gpus.describe()
    settings = describe(
        plan,
        texts,
        files,
        name,
        model=model.name,
        precision=model.precision.upper(),
        environment=numbers_set(),
        **about_device(plan, model),
        **about_peers(plan.peers, found.peer_difference),
    )
    document = as_document(found.results, machine, settings, found.invariance, found.memory_mb, left_out)
    extra = [as_table(earlier, document)] if earlier is not None else []
    outcome.output.mkdir(parents=True, exist_ok=True)
    write_json(outcome.output / "bench.json", document)
    (outcome.output / "bench.md").write_text(as_markdown(document, extra), encoding="utf-8")
    write_plots(document, outcome.output)
    _show(document, [*tables(document), *extra])
    click.echo(f"Written: {outcome.output}/bench.json, bench.md and plots.")
    return _judge(document, found.invariance.holds, outcome.fail_below)


def _judge(document: Mapping[str, Any], invariant: bool, fail_below: float | None) -> bool:
    """Say what is wrong, if anything is."""
    if not invariant:
        click.echo("An answer depended on what else was asked.", err=True)
    rows = [row for row in document["ways"] if row["section"] == "http"]
    shares = [
        row["medians"]["of_ceiling"]
        for row in rows
        if row["facts"]["connections"] >= _SOAK_CONNECTIONS and "of_ceiling" in row["medians"]
    ]
    low = fail_below is not None and (not shares or min(shares) < fail_below)
    if low:
        found = f"{min(shares):.2f}" if shares else "unknown"
        click.echo(f"HTTP under load is {found} of the ceiling, wanted {fail_below}.", err=True)
    return invariant and not low


def _soak(
    plan: Plan,
    repository: Path,
    model: Published,
    load: str,
    work: Path,
    outcome: _Outcome,
    minutes: float,
) -> None:
    """Full load on the first number of workers for that long; say how memory grew."""
    from loadtest.bench.processes import ProcessTree
    from loadtest.bench.report import Table
    from loadtest.bench.sentences import read_sentences
    from loadtest.bench.soak import soak

    texts = read_sentences(CHECKPOINT / "heldout.tsv")
    generator, name = _load(load)
    plan = replace(plan, sections=("http",), workers=plan.workers[:1], peers=())
    with progress("starting") as steps, running_stack(plan, repository, model, work) as stack:
        if stack is None:  # the plan serves
            return
        gateway = stack.gateways[0]
        trees = {"gateway": ProcessTree(gateway.pid), "triton": stack.triton_tree}
        steps.step(f"{_SOAK_CONNECTIONS} connections for {minutes:g} minutes ({name})")
        sample, memory = soak(
            lambda: generator(gateway.real, texts, _SOAK_CONNECTIONS, 60 * minutes),
            trees,
            lambda at: steps.advance(int(at), int(60 * minutes)),
        )
    growth = {program: memory.growth_percent(program) for program in trees}
    outcome.output.mkdir(parents=True, exist_ok=True)
    found = {"environment": environment(), "load": sample, "growth_percent": growth}
    write_json(outcome.output / "soak.json", found | vars(memory))
    rows = [
        (
            program,
            f"{memory.mb[program][0]:.0f}",
            f"{memory.mb[program][-1]:.0f}",
            f"{growth[program]:+.1f} %",
        )
        for program in trees
    ]
    title = f"{sample['texts']:.0f} texts, {sample['rate']:.0f}/s, p99 {sample['p99_ms']:.0f} ms"
    print_tables([Table(title, ("resident memory", "first MB", "last MB", "after the first minute"), rows)])


def served_model(repository: Path) -> Published:
    """The bundled classifier of a repository; exits with what to do if it is not there."""
    from export.errors import ExportError
    from export.repository.inventory import read_inventory

    try:
        models = {model.name: model for model in read_inventory(repository)}
    except ExportError:
        models = {}
    model = models.get(_MODEL)
    if model is None or not model.weights_file(repository).is_file():
        raise click.ClickException(
            runnable(f"{repository} holds no bundled model; run `tritonflare export`.")
        )
    return model


def _files(plan: Plan, repository: Path, model: Published, work: Path) -> tuple[Files, list[str]]:
    """The served files; FP32 is written anew from the bundled checkpoint, which takes a second."""
    from export.checkpoint import load_checkpoint
    from export.route import route_of
    from loadtest.bench.run import Files

    served, tokenizer = model.weights_file(repository), model.tokenizer_file(repository)
    if "precision" not in plan.sections:
        return Files(served, tokenizer, None), []
    checkpoint = load_checkpoint(CHECKPOINT, work)
    if checkpoint.weights_sha256 != model.weights_sha256 or model.precision == "fp32":
        return Files(served, tokenizer, None), ["FP32: what is served is not the bundled checkpoint in INT8"]
    fp32 = work / "fp32.onnx"
    fp32.write_bytes(route_of(checkpoint).fp32_graph("cpu").SerializeToString())
    return Files(served, tokenizer, fp32), []


def _texts(plan: Plan, files: Files) -> Sequence[str]:
    """The held-out sentences, or longer texts of their words."""
    from loadtest.bench.run import texts_of
    from loadtest.bench.sentences import read_sentences

    try:
        return texts_of(plan, read_sentences(CHECKPOINT / "heldout.tsv"), files)
    except ValueError as error:
        raise click.ClickException(f"{error}.") from error


def _load(choice: str, tokens: int | None = None) -> tuple[Load, str]:
    """The load generator and what it is called.

    Long texts take seconds, and wrk drops the answers that are due when its time is over: in a short
    measurement a server that batches would seem to have done nothing.
    """
    if choice == "auto" and tokens is not None:
        choice = "own"
    from loadtest.bench.wrk import Wrk, find_wrk, wrk_version
    from loadtest.closed_loop import over_http

    program = None if choice == "own" else find_wrk()
    if program is not None:
        return Wrk(program), f"wrk {wrk_version(program)}"
    if choice == "wrk":
        raise click.ClickException("wrk is not installed (Debian: apt-get install wrk).")
    return over_http, "our own asyncio client"


def _show(document: Mapping[str, Any], shown: Sequence[Table]) -> None:
    from loadtest.bench.report import about

    for line in about(document):
        click.echo(line)
    print_tables(shown)

"""``tritonflare bench-rerank``: what a reranker's answers cost, beside the same model in-process."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonflare.bench_common import Numbers, end_in_order, environment, print_tables, write_json
from tritonflare.bench_stack import running_gateway
from tritonflare.paths import BENCH, CHECKPOINT, REPOSITORY, runnable
from tritonflare.progress import progress

if TYPE_CHECKING:
    from export.repository.inventory import Published

_MODEL = "@cf/baai/bge-reranker-base"
_UNHURRIED = {"GATEWAY_MAX_QUEUE_S": "300", "GATEWAY_REQUEST_TIMEOUT_S": "600"}
"""A hundred pairs of a large model take longer than the defaults allow."""


@click.command("bench-rerank")
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, show_default=True)
@click.option("--model", default=_MODEL, show_default=True, help="Public name of a reranker.")
@click.option("--contexts", type=Numbers(), default="10,20,50,100", show_default=True, help="In one request.")
@click.option(
    "--tokens", type=click.IntRange(10), default=100, show_default=True, help="Tokens of a context, about."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0), default=3.0, show_default=True, help="For each way in each round."
)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=BENCH, show_default=True)
def bench_rerank(
    repository: Path,
    model: str,
    contexts: tuple[int, ...],
    tokens: int,
    rounds: int,
    seconds: float,
    output: Path,
) -> None:
    """Measure reranking through the gateway and in-process, in alternating rounds.

    Starts its own Triton and gateway on free loopback ports. One request with each number of contexts is
    timed; then, with 50 contexts or the middle number, a request for each context, and ONNX Runtime on the
    same file in-process. Every score is compared with that of its context alone.

    Exits 1 if a score depended on its neighbours. Writes rerank.json to --output.
    """
    from loadtest.client import LoadError

    end_in_order()
    served = _reranker(repository, model)
    try:
        with tempfile.TemporaryDirectory(prefix="tritonflare_bench_") as work:
            document = _measure(repository, served, contexts, tokens, rounds, seconds, Path(work))
    except (LoadError, ValueError) as error:
        raise click.ClickException(f"{error}.") from error
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "rerank.json", document | {"environment": environment()})
    click.echo(f"Written: {output}/rerank.json.")
    if document["largest_difference"] > document["bound"]:
        click.echo("A score depended on what else was asked.", err=True)
        sys.exit(1)


def _measure(
    repository: Path,
    model: Published,
    contexts: tuple[int, ...],
    tokens: int,
    rounds: int,
    seconds: float,
    work: Path,
) -> dict[str, Any]:
    from embedded.errors import EmbeddedError
    from embedded.server import TritonServer
    from export.repository.inventory import read_config
    from loadtest.bench import rerank
    from loadtest.bench.null_repository import link_model
    from loadtest.bench.report import Table
    from loadtest.bench.rounds import alternate
    from loadtest.bench.sentences import read_sentences

    onnx, tokenizer = model.weights_file(repository), model.tokenizer_file(repository)
    config = read_config(repository / model.ensemble)
    max_tokens = 512 if config is None else int(config.parameters["tritonflare.max_tokens"].string_value)
    words = read_sentences(CHECKPOINT / "heldout.tsv")
    question = rerank.make_question(tokenizer, words, max(contexts), tokens)
    link_model(repository, model.folders, work / "models")
    settings = _UNHURRIED | {"GATEWAY_MAX_CONTEXTS": str(max(contexts))}
    local = rerank.PairsInProcess(onnx, tokenizer, max_tokens)
    try:
        with (
            progress("starting") as steps,
            TritonServer(work / "models") as server,
            running_gateway(server, (model.name,), work / "gateway.log", 1, settings) as gateway,
        ):
            steps.step("asking every context alone")
            singles = [rerank.Question(question.query, [context]) for context in question.contexts]
            alone = [scores[0] for scores in rerank.ask_each(gateway.real, singles)]
            differences = rerank.Differences(dict(enumerate(alone)))
            ways = list(rerank.rerank_ways(gateway.real, local, question, contexts, seconds, differences))
            results = alternate(ways, rounds, steps)
    except EmbeddedError as error:
        raise click.ClickException(str(error)) from error
    finally:
        local.close()
    found = rerank.summary(results, contexts)
    facts = [(what, f"{value:.4g}") for what, value in found.items()]
    facts.append(
        (f"largest difference of a score ({differences.answers} answers)", f"{differences.largest:.1e}")
    )
    heads = ("", "contexts", "ms", "contexts/s")
    print_tables([Table(model.name, heads, rerank.rows(results)), Table("Summary", ("", "median"), facts)])
    settings_of_run = {
        "model": model.name,
        "precision": model.precision,
        "tokens": tokens,
        "seconds": seconds,
    }
    return {"settings": settings_of_run, "bound": rerank.BOUND, **rerank.as_json(results, found, differences)}


def _reranker(repository: Path, name: str) -> Published:
    from embedded.errors import EmbeddedError
    from embedded.repository import check_repository
    from export.repository.inventory import read_inventory

    try:
        rerankers = {model.name for model in check_repository(repository) if model.is_reranker}
    except EmbeddedError as error:
        raise click.ClickException(runnable(str(error))) from error
    if name not in rerankers:
        known = ", ".join(sorted(rerankers)) or "none"
        raise click.ClickException(f"{name} is no reranker of {repository}; there are: {known}.")
    return next(model for model in read_inventory(repository) if model.name == name)

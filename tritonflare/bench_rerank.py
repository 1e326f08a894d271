"""``tritonflare bench-rerank``: what a reranker's answers cost, beside the same model in-process."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonflare.bench_common import Names, Numbers, end_in_order, environment, print_tables, write_json
from tritonflare.bench_peers import NAMES, about_peers, require_peers, running_reranking_peers
from tritonflare.bench_stack import numbers_set, running_gateway
from tritonflare.device import device_option
from tritonflare.paths import BENCH, CHECKPOINT, REPOSITORY, runnable
from tritonflare.progress import progress

if TYPE_CHECKING:
    from export.repository.inventory import Published
    from loadtest.bench.rerank_run import RerankPlan

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
@click.option(
    "--connections",
    type=Numbers(),
    default="1,8",
    show_default=True,
    help="How many requests at once are measured, each with 50 contexts or the middle number.",
)
@click.option(
    "--peers", type=Names(NAMES), default=(), help=f"Other servers to compare with, of {', '.join(NAMES)}."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0), default=3.0, show_default=True, help="For each way in each round."
)
@device_option
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=BENCH, show_default=True)
def bench_rerank(
    repository: Path,
    model: str,
    contexts: tuple[int, ...],
    tokens: int,
    connections: tuple[int, ...],
    peers: tuple[str, ...],
    rounds: int,
    seconds: float,
    device: str,
    output: Path,
) -> None:
    """Measure reranking through the gateway and in-process, in alternating rounds.

    Starts its own Triton and gateway on free loopback ports. One request with each number of contexts is
    timed; then, with 50 contexts or the middle number, a request for each context, and ONNX Runtime on the
    same file in-process. Last come several requests at once, and the same with --peers. Every score is
    compared with that of its context alone.

    Exits 1 if a score depended on its neighbours. Writes rerank.json to --output.
    """
    from loadtest.bench.rerank_run import RerankPlan
    from loadtest.client import LoadError

    end_in_order()
    require_peers(peers)
    served = _reranker(repository, model)
    if served.target == "cuda" and device != "cpu":
        raise click.UsageError(
            f"{model} was exported for a GPU, and what it is compared with computes on the CPU; "
            "add --device cpu."
        )
    plan = RerankPlan(contexts, tokens, connections, rounds, seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="tritonflare_bench_") as work:
            document = _measure(repository, served, plan, peers, Path(work), device)
    except (LoadError, ValueError) as error:
        raise click.ClickException(f"{error}.") from error
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "rerank.json", document | {"environment": environment()})
    click.echo(f"Written: {output}/rerank.json.")
    if document["largest_difference"] > document["bound"]:
        click.echo("A score depended on what else was asked.", err=True)
        sys.exit(1)


def _measure(
    repository: Path, model: Published, plan: RerankPlan, names: Sequence[str], work: Path, device: str
) -> dict[str, Any]:
    """Start everything, measure it, and show what was found."""
    from embedded.errors import EmbeddedError
    from embedded.server import TritonServer
    from export.repository.inventory import read_config
    from loadtest.bench import rerank_run
    from loadtest.bench.null_repository import link_model
    from loadtest.bench.peers.servers import PeerModel
    from loadtest.bench.processes import ProcessTree
    from loadtest.bench.rerank import BOUND, PairsInProcess
    from loadtest.bench.sentences import read_sentences

    config = read_config(repository / model.ensemble)
    max_tokens = 512 if config is None else int(config.parameters["tritonflare.max_tokens"].string_value)
    onnx, tokenizer = model.weights_file(repository), model.tokenizer_file(repository)
    link_model(repository, model.folders, work / "models")
    settings = _UNHURRIED | {"GATEWAY_MAX_CONTEXTS": str(max(plan.contexts))}
    local = PairsInProcess(onnx, tokenizer, max_tokens)
    try:
        with (
            progress("starting") as steps,
            TritonServer(work / "models", device=device) as server,
            running_gateway(server, (model.name,), work / "gateway.log", 1, settings) as gateway,
            running_reranking_peers(
                names, PeerModel(onnx, tokenizer, model.labels, max_tokens), work / "peers"
            ) as peers,
        ):
            trees = [ProcessTree(gateway.pid), ProcessTree(server.pid)]
            stack = rerank_run.RerankStack(gateway.real, trees, peers)
            words = read_sentences(CHECKPOINT / "heldout.tsv")
            found = rerank_run.measure(plan, tokenizer, words, local, stack, steps)
    except EmbeddedError as error:
        raise click.ClickException(str(error)) from error
    finally:
        local.close()
    print_tables(rerank_run.tables(model.name, plan, found))
    described = {
        "model": model.name,
        "precision": model.precision,
        "tokens": plan.tokens,
        "connections": list(plan.connections),
        "seconds": plan.seconds,
        "environment": numbers_set(),
        **about_peers(names, found.peer_difference),
    }
    return {"settings": described, "bound": BOUND, **rerank_run.as_json(found)}


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

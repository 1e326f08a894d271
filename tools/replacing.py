"""Replacing a model under load, with the real Triton: a rollback, and a second model beside the first.

    .venv/bin/python -m tools.replacing

Publishes two versions of the bundled model and a second model in a temporary folder. Then

1. `tritonflare serve --watch` is asked at a fixed rate while `tritonflare export --rollback` runs: how many
   requests failed, and which versions answered;
2. gateways before one Triton are asked at the same rate in alternating rounds, one that asks a second model
   and two that do not: the ratios of their latencies, and between the two what is noise.

Prints what it found. Exits with 1 if a request failed or the old version did not answer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import click

from embedded.server import TritonServer
from export.repository.inventory import read_inventory
from export.repository.kept import other_versions
from loadtest.bench.sentences import read_sentences
from loadtest.client import ClientConnection, Target
from loadtest.closed_loop import over_http
from tritonflare.bench_stack import TOKEN, running_gateway, running_process, wait_for_line

MODEL, SECOND = "@cf/huggingface/distilbert-sst-2-int8", "@cf/tools/second"
_ROOT = Path(__file__).parents[1]
_TEXTS = _ROOT / "checkpoints/minilm-sst2/heldout.tsv"
_SERVING = re.compile(r"(?:Ready: |serving on )(http://127\.0\.0\.1:\d+)/client/v4")
_VERSION = re.compile(rb"\r\nx-model-version: ([^\r]+)\r\n")
_STARTS_WITHIN_S = 120.0
_BEFORE_S = 3.0
_SERVED_S = 5.0
"""How long the old version answers until the load ends."""
_PEAK_S = 3.0
_PEAK_CONNECTIONS = 8


class VersionedConnection(ClientConnection):
    """A connection that also tells which version has answered."""

    version = ""

    @classmethod
    async def to(cls, target: Target) -> VersionedConnection:
        """Connect; see `ClientConnection.open`."""
        return cast(VersionedConnection, await cls.open(target))

    def data_received(self, data: bytes) -> None:
        """Called by the event loop; the head comes in the first piece."""
        found = _VERSION.search(data)
        if found:
            self.version = found[1].decode()
        super().data_received(data)


@dataclass
class Load:
    """What became of requests that left at a fixed rate."""

    latencies_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)
    """Of each answer, in their order."""

    @property
    def sent(self) -> int:
        """Requests."""
        return len(self.latencies_s) + self.failures.total()

    def percentile_ms(self, percent: int) -> float:
        """A latency in milliseconds."""
        return 1000 * statistics.quantiles(self.latencies_s, n=100)[percent - 1]


async def send_at_rate(
    target: Target,
    texts: Sequence[str],
    rate: float,
    seconds: float,
    is_enough: Callable[[Load], bool] = lambda load: False,
) -> Load:
    """An open loop, for so long unless enough was seen: a request without its answer holds up no other."""
    load, idle = Load(), list[VersionedConnection]()
    requests = itertools.cycle([target.request(text) for text in texts])

    async def ask(request: bytes) -> None:
        began = time.perf_counter()
        try:
            connection = idle.pop() if idle else await VersionedConnection.to(target)
            status, _ = await connection.exchange(request)
        except OSError as error:
            load.failures[type(error).__name__] += 1
            return
        if status != 200:
            load.failures[str(status)] += 1
        else:
            load.latencies_s.append(time.perf_counter() - began)
            load.versions.append(connection.version)
        if connection.reusable:
            idle.append(connection)

    loop = asyncio.get_running_loop()
    began, tasks = loop.time(), []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        if is_enough(load):
            break
        tasks.append(loop.create_task(ask(next(requests))))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return load


def export(repository: Path, *options: str) -> None:
    """Run ``tritonflare export`` on the repository.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "tritonflare", "export", *options, "--repository", str(repository)]
    artefacts = repository.with_name("artefacts")
    subprocess.run([*command, "--artefacts", str(artefacts)], check=True, stdout=subprocess.DEVNULL)


async def rollback_under_load(
    target: Target, texts: Sequence[str], rate: float, seconds: float, repository: Path
) -> Load:
    """Ask while the model is rolled back, and go on until the old version has answered for a while."""

    def is_served(load: Load) -> bool:
        return len(set(load.versions)) > 1 and load.versions.count(load.versions[-1]) > _SERVED_S * rate

    load = asyncio.create_task(send_at_rate(target, texts, rate, seconds, is_served))
    await asyncio.sleep(_BEFORE_S)
    await asyncio.to_thread(export, repository, "--rollback", MODEL)
    return await load


def show_rollback(load: Load) -> bool:
    """Print what became of the requests; return whether none failed and both versions answered, in turn."""
    blocks = [version for version, _ in itertools.groupby(load.versions)]
    counts = Counter(load.versions)
    click.echo(
        f"rollback: {load.sent} requests, {load.failures.total()} failed {dict(load.failures) or ''}; "
        + ", ".join(f"{count} by {version}" for version, count in counts.items())
        + f"; p50 {load.percentile_ms(50):.1f} ms, p99 {load.percentile_ms(99):.1f} ms"
    )
    # Answers of the last texts of the old version may come after the first of the new one.
    in_turn = len(counts) == len({blocks[0], blocks[-1]}) == 2
    return not load.failures and in_turn


def show_shadow(rounds: Sequence[Mapping[str, Load]]) -> bool:
    """Print the latencies and their ratios; return whether no request failed."""
    failed = sum(load.failures.total() for each in rounds for load in each.values())
    sent = sum(load.sent for each in rounds for load in each.values())
    click.echo(f"shadow: {sent} requests in {len(rounds)} rounds, {failed} failed")
    for percent in (50, 95):
        found = {name: [each[name].percentile_ms(percent) for each in rounds] for name in rounds[0]}
        told = ", ".join(f"{name} {statistics.median(values):.2f} ms" for name, values in found.items())
        click.echo(f"  p{percent}: {told}")
        for name in ("with", "again without"):
            ratios = [mine / base for mine, base in zip(found[name], found["without"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            click.echo(
                f"    {name} / without: median {middle:.3f}, half of the rounds {low:.3f} to {high:.3f}"
            )
    return not failed


def alternate(
    targets: Mapping[str, Target], texts: Sequence[str], rate: float, rounds: int, seconds: float
) -> list[dict[str, Load]]:
    """Ask one after the other, in another order in each round."""
    found = []
    for number in range(rounds):
        order = list(targets)[number % len(targets) :] + list(targets)[: number % len(targets)]
        found.append({name: asyncio.run(send_at_rate(targets[name], texts, rate, seconds)) for name in order})
    return found


@click.command()
@click.option("--rounds", default=30, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of a way in a round.")
@click.option(
    "--rollback-seconds", default=120.0, show_default=True, help="Until the old version has to be served."
)
@click.option("--load", "part", default=0.3, show_default=True, help="Rate as a share of the peak.")
@click.option("--share", default=0.1, show_default=True, help="Of the texts that the second model reads.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where the models are exported to, and found by the next run [default: a temporary one].",
)
def main(
    rounds: int, seconds: float, rollback_seconds: float, part: float, share: float, folder: Path | None
) -> None:
    """Replace a model under load, and say what that costs its callers."""
    texts = read_sentences(_TEXTS)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        repository = (folder or work).absolute() / "repository"
        _export_models(repository)
        good = _rollback(repository, texts, part, rollback_seconds, work)
        good &= _shadow(repository, texts, part, rounds, seconds, share, work)
    sys.exit(0 if good else 1)


def _export_models(repository: Path) -> None:
    """Two versions of the model, the newer one published, and the second model; what is there stays."""
    found = {model.name: model for model in read_inventory(repository)} if repository.is_dir() else {}
    if MODEL not in found:
        export(repository, "--quick")
    if MODEL not in found or not other_versions(repository, found[MODEL]):
        export(repository, "--quick", "--layout", "joined")
    if SECOND not in found:
        export(repository, "--quick", "--layout", "joined", "--name", SECOND)


def _rollback(repository: Path, texts: Sequence[str], part: float, seconds: float, work: Path) -> bool:
    command = [sys.executable, "-m", "tritonflare", "serve", "--host", "127.0.0.1", "--port", "0", "--watch"]
    command += ["--repository", str(repository)]
    given = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    settings = {"GATEWAY_ACCESS_LOG_SHARE": "0", "GATEWAY_API_TOKENS": f"bench:{TOKEN}"}
    log = work / "serve.log"
    with running_process(command, given | settings, log, _STARTS_WITHIN_S) as process:
        found = wait_for_line(process, log, _SERVING, _STARTS_WITHIN_S)
        if found is None:
            raise click.ClickException(f"`tritonflare serve` did not start: {log.read_text()[-2000:]}")
        target = Target(found[1], TOKEN, f"/client/v4/accounts/bench/ai/run/{MODEL}")
        rate = _rate(target, texts, part)
        load = asyncio.run(rollback_under_load(target, texts, rate, seconds, repository))
    export(repository, "--rollback", MODEL, "--to", "2")
    return show_rollback(load)


def _shadow(
    repository: Path, texts: Sequence[str], part: float, rounds: int, seconds: float, share: float, work: Path
) -> bool:
    names, quiet = (MODEL, SECOND), {"GATEWAY_ACCESS_LOG_SHARE": "0"}
    asks = quiet | {"GATEWAY_SHADOW": f"{MODEL}={SECOND}:{share:g}"}
    with (
        TritonServer(repository) as triton,
        running_gateway(triton, names, work / "without.log", settings=quiet) as without,
        running_gateway(triton, names, work / "with.log", settings=asks) as shadowed,
        running_gateway(triton, names, work / "again.log", settings=quiet) as again,
    ):
        found = {"without": without.real, "with": shadowed.real, "again without": again.real}
        targets = {
            name: replace(target, path=f"/client/v4/accounts/bench/ai/run/{MODEL}")
            for name, target in found.items()
        }
        rate = _rate(targets["without"], texts, part)
        good = show_shadow(alternate(targets, texts, rate, rounds, seconds))
        report = [sys.executable, "-m", "tritonflare", "shadow", "--url", shadowed.real.url]
        click.echo(subprocess.run(report, check=True, capture_output=True, text=True).stdout)
    return good


def _rate(target: Target, texts: Sequence[str], part: float) -> float:
    """Requests a second that are a part of the peak."""
    peak = over_http(target, texts, _PEAK_CONNECTIONS, _PEAK_S)["rate"]
    click.echo(f"peak {peak:.0f}/s over {_PEAK_CONNECTIONS} connections; load {part * peak:.0f}/s")
    return part * peak


if __name__ == "__main__":
    main()

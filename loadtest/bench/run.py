"""One run of the bench before a running Triton and its gateways."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.bench import protocols, sections
from loadtest.bench.gpu import Gpus
from loadtest.bench.grpc_client import GrpcTarget, Statistics
from loadtest.bench.in_process import InProcess
from loadtest.bench.invariance import BOUND, Invariance
from loadtest.bench.meter import Meter
from loadtest.bench.null_repository import ModelFolders
from loadtest.bench.padding import Grouping
from loadtest.bench.peers.agreement import compare_answers
from loadtest.bench.peers.servers import RunningPeer
from loadtest.bench.peers.ways import OURS, MeasuredServer, MeasuredServers, peer_ways
from loadtest.bench.processes import ProcessTree
from loadtest.bench.rounds import Progress, Result, Way, alternate
from loadtest.bench.sections import Served, Setting
from loadtest.bench.sentences import ExactTexts, token_lengths
from loadtest.client import Target
from loadtest.closed_loop import Load

LONG_TEXTS = 128
"""With 200 tokens each, as many tokens as two sets of sentences have, so answers are soon compared."""


@dataclass(frozen=True)
class Plan:
    """What is measured: sections of `sections.SECTIONS` or ``peers``, rounds, seconds a way, connections.

    ``workers`` are processes of the gateway; each number is a gateway of its own. ``peers`` are environments
    of `peers.servers.NAMES`. ``tokens`` is about how many the texts have; None stands for real sentences.
    ``device`` is where Triton's models compute (see `embedded.server.TritonServer`), ``bound`` the largest
    |difference| of a score under load from the same text's alone.
    """

    sections: Sequence[str]
    rounds: int
    seconds: float
    connections: Sequence[int]
    null_connections: Sequence[int]
    workers: Sequence[int] = (1,)
    peers: Sequence[str] = ()
    tokens: int | None = None
    device: str = "auto"
    bound: float = BOUND

    @property
    def serves(self) -> bool:
        """Whether anything needs a running server."""
        return bool({"grpc", "http", "null", "length", "protocols", "peers"} & set(self.sections))


@dataclass(frozen=True)
class Files:
    """The files behind the served model; ``fp32`` is the same model unquantised, if there is one."""

    model: Path
    tokenizer: Path
    fp32: Path | None
    max_tokens: int = 512


@dataclass(frozen=True)
class MeasuredGateway:
    """A running gateway: its process, where its two models answer, and its port for gRPC, if it has one."""

    workers: int
    pid: int
    real: Target
    null: Target
    grpc: GrpcTarget | None = None


@dataclass(frozen=True)
class Stack:
    """Everything that runs.

    ``one_call_each`` is a gateway that sends every text in a call of its own. ``both_protocols`` is one that
    serves gRPC as well, and refuses nothing. ``gpus`` are the devices that serve, None without any
    that can be read.
    """

    triton: GrpcTarget
    triton_pid: int
    real: ModelFolders
    null: ModelFolders
    gateways: Sequence[MeasuredGateway]
    one_call_each: MeasuredGateway | None
    both_protocols: MeasuredGateway | None
    grouping: Grouping | None
    gpus: Gpus | None = None

    @property
    def triton_tree(self) -> ProcessTree:
        """Triton and its stubs, but for the null encoder's, which is not part of a deployment."""
        return ProcessTree(self.triton_pid, without=f"/{self.null.encoder}/")


@dataclass(frozen=True)
class RunningPeers:
    """The peers with the real and with the null model, in the same order."""

    real: Sequence[RunningPeer]
    null: Sequence[RunningPeer]


@dataclass(frozen=True)
class Measured:
    """What a run found.

    ``memory_mb`` is resident memory at the end, by program. ``peer_difference`` is the largest |difference|
    of a peer's score from ours, None without peers.
    """

    results: Sequence[Result]
    invariance: Invariance
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    peer_difference: float | None = None


def measure(
    plan: Plan,
    texts: Sequence[str],
    load: Load,
    files: Files,
    stack: Stack | None,
    progress: Progress,
    peers: RunningPeers | None = None,
) -> Measured:
    """All rounds of all sections; ``peers`` need a stack beside them.

    Raises:
        LoadError: a server refused a request, or a peer's answers are not ours.
    """
    invariance = Invariance(texts, plan.bound)
    ways = list(_local_ways(plan, texts, files))
    if stack is None:
        return Measured(alternate(ways, plan.rounds, progress), invariance)
    servers = None if peers is None else _measured_servers(stack, peers)
    difference = None
    with Statistics(stack.triton) as counted:
        setting = Setting(texts, plan.seconds, load, stack.gpus)
        ways += _served_ways(plan, setting, files, stack, counted, invariance)
        if "http" in plan.sections:
            progress.step("asking every sentence alone")
            invariance.classify_sequentially(stack.gateways[0].real)
        if servers is not None:
            progress.step("comparing the peers' answers with ours")
            difference = max(compare_answers(each, texts) for each in (servers.real, servers.null))
            ways += peer_ways(servers, load, texts, plan.seconds, plan.connections, plan.null_connections)
        results = alternate(ways, plan.rounds, progress)
    memory = {"triton": stack.triton_tree.rss_bytes() / 1e6}
    for gateway in stack.gateways:
        name = "gateway" if gateway.workers == 1 else f"gateway, {gateway.workers} processes"
        memory[name] = ProcessTree(gateway.pid).rss_bytes() / 1e6
    for peer in () if servers is None else servers.real[1:]:
        memory[peer.name] = peer.rss_bytes() / 1e6
    return Measured(results, invariance, memory, difference)


def texts_of(plan: Plan, sentences: Sequence[str], files: Files) -> Sequence[str]:
    """What is asked: the sentences, or longer texts of their words, none beyond what the model reads.

    Raises:
        ValueError: this tokenizer does not count words one by one.
    """
    if plan.tokens is None:
        return sentences
    exact = ExactTexts(files.tokenizer, sentences)
    return exact.about(plan.tokens, LONG_TEXTS, longest=files.max_tokens)[0]


def _measured_servers(stack: Stack, peers: RunningPeers) -> MeasuredServers:
    """The first gateway and the peers."""
    gateway = stack.gateways[0]
    # The null encoder serves our null model, and is no part of a deployment.
    trees = ProcessTree(gateway.pid), ProcessTree(stack.triton_pid)
    ours = MeasuredServer(OURS, gateway.real, (trees[0], stack.triton_tree))
    null = MeasuredServer(OURS, gateway.null, trees)
    return MeasuredServers([ours, *map(_measured, peers.real)], [null, *map(_measured, peers.null)])


def _measured(peer: RunningPeer) -> MeasuredServer:
    return MeasuredServer.of_process(peer.name, peer.target, peer.pid)


def _local_ways(plan: Plan, texts: Sequence[str], files: Files) -> Iterator[Way]:
    if {"ceiling", "precision", "peers"} & set(plan.sections):
        yield from sections.ceiling_ways(
            InProcess(files.model, files.tokenizer, texts, files.max_tokens), plan.seconds
        )
    if "precision" in plan.sections and files.fp32 is not None:
        yield from sections.precision_ways(
            InProcess(files.fp32, files.tokenizer, texts, files.max_tokens), plan.seconds
        )


def _served_ways(
    plan: Plan,
    setting: Setting,
    files: Files,
    stack: Stack,
    counted: Statistics,
    invariance: Invariance,
) -> Iterator[Way]:
    lengths = token_lengths(files.tokenizer, setting.texts, files.max_tokens)
    served = [_served(gateway, stack, counted, lengths) for gateway in stack.gateways]
    if "grpc" in plan.sections:
        trees = {"triton": stack.triton_tree}
        meter = Meter(trees, counted, stack.real, lengths, stack.grouping, stack.gpus)
        yield from sections.grpc_ways(setting, stack.triton, meter)
    if "http" in plan.sections:
        yield from sections.http_ways(setting, served, plan.connections, invariance)
    if "protocols" in plan.sections and stack.both_protocols is not None:
        servers = _servers(stack, stack.both_protocols, counted, lengths)
        yield from protocols.protocol_ways(servers, setting.texts, setting.seconds, plan.connections)
    if "null" in plan.sections:
        single = stack.one_call_each
        yield from sections.null_ways(
            setting,
            served,
            plan.null_connections,
            stack.triton,
            None if single is None else _served(single, stack, counted, lengths),
        )
    if "length" in plan.sections:
        yield from sections.length_ways(setting, served[0].real, ExactTexts(files.tokenizer, setting.texts))


def _served(gateway: MeasuredGateway, stack: Stack, counted: Statistics, lengths: Sequence[int]) -> Served:
    whole = ProcessTree(stack.triton_pid)
    trees = {"gateway": ProcessTree(gateway.pid)}
    real_trees = trees | {"triton": stack.triton_tree}
    real = Meter(real_trees, counted, stack.real, lengths, stack.grouping, stack.gpus)
    null = Meter(trees | {"triton": whole}, counted, stack.null, lengths, None)
    return Served(gateway.workers, gateway.real, gateway.null, real, null)


def _servers(
    stack: Stack, gateway: MeasuredGateway, counted: Statistics, lengths: Sequence[int]
) -> protocols.Servers:
    if gateway.grpc is None:
        raise ValueError("the gateway serves no gRPC")
    return protocols.Servers(
        http=gateway.real,
        grpc=gateway.grpc,
        triton=stack.triton,
        meter=_served(gateway, stack, counted, lengths).meter,
    )


def describe(
    plan: Plan, texts: Sequence[str], files: Files, load_generator: str, **settings: Any
) -> Mapping[str, Any]:
    """The settings of a run for its document; ``settings`` are added as they are."""
    lengths = token_lengths(files.tokenizer, texts, files.max_tokens)
    return {
        "sections": list(plan.sections),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "connections": list(plan.connections),
        "null_connections": list(plan.null_connections),
        "workers": list(plan.workers),
        "tokens": plan.tokens,
        "load_generator": load_generator,
        "texts": len(texts),
        "tokens_mean": round(statistics.mean(lengths), 2),
        **settings,
    }

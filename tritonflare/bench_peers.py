"""The bench's peers: where their environments are, and all of them running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonflare.paths import PEERS

if TYPE_CHECKING:
    from loadtest.bench.peers.servers import Peer, PeerModel, RunningPeer
    from loadtest.bench.run import Files, RunningPeers

# Spelt out here, because `tritonflare --help` must not wait for ONNX Runtime; a test holds them together.
NAMES = ("fastapi", "mosec")


def require_peers(names: Sequence[str]) -> None:
    """Find the environments of these peers.

    Raises:
        click.ClickException: one is not installed.
    """
    from loadtest.bench.peers.servers import missing

    if absent := missing(names, PEERS):
        raise click.ClickException(
            f"not installed: {', '.join(absent)}; run `make peers-env PEERS={','.join(names)}`, "
            "or `make bench-peers`, which installs them and measures."
        )


@contextmanager
def running_peers(
    names: Sequence[str], files: Files, labels: Sequence[str], work: Path
) -> Iterator[RunningPeers | None]:
    """All servers of these environments, each with the real and with the null model; None without names.

    Raises:
        LoadError: one did not start.
    """
    from loadtest.bench.peers.servers import PEERS as KNOWN
    from loadtest.bench.peers.servers import PeerModel
    from loadtest.bench.run import RunningPeers

    if not names:
        yield None
        return
    with ExitStack() as programs:

        def running(model: Path | None, folder: Path) -> list[RunningPeer]:
            served = PeerModel(model, files.tokenizer, labels, files.max_tokens)
            return _start(programs, KNOWN, names, served, folder)

        yield RunningPeers(running(files.model, work / "real"), running(None, work / "null"))


@contextmanager
def running_reranking_peers(
    names: Sequence[str], model: PeerModel, work: Path
) -> Iterator[list[RunningPeer]]:
    """All servers of these environments with a reranker.

    Raises:
        LoadError: one did not start.
    """
    from loadtest.bench.peers.servers import RERANKING_PEERS

    with ExitStack() as programs:
        yield _start(programs, RERANKING_PEERS, names, model, work)


def _start(
    programs: ExitStack, known: Sequence[Peer], names: Sequence[str], model: PeerModel, work: Path
) -> list[RunningPeer]:
    from loadtest.bench.peers.servers import running_peer

    chosen = [peer for peer in known if peer.environment in names]
    return [
        programs.enter_context(running_peer(peer, model, PEERS, work / str(number)))
        for number, peer in enumerate(chosen)
    ]


def about_peers(names: Sequence[str], difference: float | None) -> dict[str, Any]:
    """What the document says of them: versions by environment, and how far their answers are from ours."""
    from loadtest.bench.peers.servers import package_versions

    if difference is None:
        return {}
    packages = {name: package_versions(name, PEERS) for name in names}
    return {"peers": {"packages": packages, "largest_difference": difference}}

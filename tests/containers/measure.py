"""Sizes, start-up times, memory and throughput of the containers, beside the same programs outside of them.

    python -m tests.containers.measure --rounds 7 --seconds 8 > containers.md

Everything is on this machine: a `tritonflare serve` of this environment, the image with everything in it at a
published port and in the host's network, and the compose files. All serve the same checkpoint in INT8, and
are asked in turn, round after round. Nothing else should run meanwhile. Needs root, as the tests.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtest.bench.rounds import Result, Way, alternate
from loadtest.bench.wrk import Wrk, find_wrk, wrk_version
from loadtest.closed_loop import Load, over_http
from loadtest.traffic import read_texts
from tests.support.containers.deployment import IMAGE_PREFIX, PATH, Deployment, new_deployment
from tests.support.containers.engine import CommandFailed, Engine, available_engine
from tests.support.containers.images import PYTHON_STANDIN, python_image
from tests.support.containers.one import PUBLISHED, TOKEN, WITH_TOKEN, one_container
from tests.support.containers.processes import main_process, usage
from tests.support.deploy.compose_triton import free_port
from tests.support.load import Target
from tests.support.servers import ROOT, finished, wait_until
from tests.support.texts import CHECKPOINT
from tritonflare.progress import Steps

CONNECTIONS = (32, 128)
OUTSIDE = "outside"
_DOCKERFILES = {
    "tritonflare": "docker/cpu/Dockerfile",
    "tritonflare-gateway": "docker/gateway/Dockerfile",
    "tritonflare-export": "docker/export/Dockerfile",
}


@dataclass(frozen=True)
class Server:
    """Something that answers.

    start_s: seconds from its start to readiness.
    memory: a name and a function that reads how many bytes it has now, for each of its parts.
    """

    name: str
    target: Target
    start_s: float
    memory: dict[str, Callable[[], int]]


def main() -> None:
    """Run the measurements and print them as Markdown; progress goes to stderr."""
    options = _options()
    program = find_wrk()
    load: Load = Wrk(program) if program else over_http
    generator = f"wrk {wrk_version(program)}" if program else "loadtest/closed_loop.py"
    with tempfile.TemporaryDirectory(prefix="tritonflare-measure-") as folder, available_engine() as engine:
        base = python_image(engine)
        cold = {name: build(engine, name, base) for name in _DOCKERFILES} if options.cold else {}
        with servers(engine, base, Path(folder)) as found:
            print_images(engine, cold)
            idle = [{part: read() for part, read in server.memory.items()} for server in found]
            results = measure(found, load, options.rounds, options.seconds)
            print_starts(found, idle)
            cores = os.cpu_count()
            print(f"\n{generator}, {options.rounds} rounds of {options.seconds:g} s, {cores} cores; medians")
            print_rates(results)


def build(engine: Engine, name: str, base: str) -> float:
    """Build an image without the cache; return how many seconds it took."""
    began = time.monotonic()
    network = ["--network=host"] if base == PYTHON_STANDIN else []
    tag = f"--tag={IMAGE_PREFIX}{name}:0.1.0"
    options = [
        "--no-cache",
        f"--build-arg=PYTHON_IMAGE={base}",
        f"--file={_DOCKERFILES[name]}",
        tag,
        *network,
    ]
    engine.docker("build", *options, ".", cwd=ROOT, timeout=1800)
    return time.monotonic() - began


@contextmanager
def servers(engine: Engine, base: str, folder: Path) -> Iterator[list[Server]]:
    """All servers, ready and idle."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(compose_pair(engine, base, folder / "compose")),
            stack.enter_context(outside(folder)),
            stack.enter_context(one(engine, "one container, published port", PUBLISHED)),
            stack.enter_context(one(engine, "one container, host's network", None)),
        ]


@contextmanager
def compose_pair(engine: Engine, base: str, folder: Path) -> Iterator[Server]:
    """The CPU files with one gateway and one Triton; their second start, with images and volumes there."""
    folder.mkdir()
    deployment = new_deployment(engine, folder, f"tritonflare-measure-{os.getpid()}", base)
    try:
        print(f"First `up` with images in the cache: {deployment.up():.1f} s\n")
        deployment.compose("stop")
        start_s = _up_without_building(deployment)
        parts = {name: deployment.containers(name)[0] for name in ("gateway", "triton")}
        memory = {name: _container_memory(engine, container) for name, container in parts.items()}
        yield Server("compose, published port", deployment.targets()[0], start_s, memory)
    except CommandFailed as error:
        sys.exit(str(error))
    finally:
        deployment.compose("down", "--volumes", "--timeout=10")


def _up_without_building(deployment: Deployment) -> float:
    began = time.monotonic()
    deployment.compose("up", "--detach", "--wait", "--no-build")
    return time.monotonic() - began


@contextmanager
def outside(folder: Path) -> Iterator[Server]:
    """`tritonflare serve` with what `tritonflare export --quick` writes. It logs to a file."""
    repository = folder / "repository"
    arguments = ["export", str(CHECKPOINT), "--quick", f"--repository={repository}"]
    status, output = finished(*arguments, f"--artefacts={folder / 'artefacts'}", timeout=600)
    assert status == 0, output
    port = free_port()
    log = (folder / "serve.log").open("w")
    began = time.monotonic()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | {
        "GATEWAY_PORT": str(port),
        "GATEWAY_API_TOKENS": f"*:{TOKEN}",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tritonflare", "serve", f"--repository={repository}"],
        env=variables,
        stdout=log,
        stderr=log,
    )
    try:
        ready = wait_until(lambda: "monitor: ready\n" in Path(log.name).read_text(), 60)
        assert ready, Path(log.name).read_text()
        target = Target(f"http://127.0.0.1:{port}", TOKEN, PATH)
        yield Server(OUTSIDE, target, time.monotonic() - began, {"all": lambda: _process_memory(process.pid)})
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@contextmanager
def one(engine: Engine, name: str, published: Sequence[str] | None) -> Iterator[Server]:
    """The image with everything in it; in the host's network where nothing is published."""
    port = free_port()
    host = ("--network=host", f"--env=GATEWAY_PORT={port}", "--env=GATEWAY_HOST=127.0.0.1")
    began = time.monotonic()
    with one_container(engine, *(published or host), *WITH_TOKEN) as container:
        start_s = time.monotonic() - began
        url = container.url if published else f"http://127.0.0.1:{port}"
        memory = {"all": _container_memory(engine, container.name)}
        yield Server(name, Target(url, TOKEN, PATH), start_s, memory)


def _container_memory(engine: Engine, container: str) -> Callable[[], int]:
    return lambda: usage(main_process(engine, container)).anonymous_bytes


def _process_memory(pid: int) -> int:
    """Anonymous memory of the process and of those below it, which is what a container's cgroup counts."""
    process = psutil.Process(pid)
    rollups = [
        Path(f"/proc/{part.pid}/smaps_rollup").read_text()
        for part in (process, *process.children(recursive=True))
    ]
    return sum(1024 * int(size) for text in rollups for size in re.findall(r"^Anonymous: +(\d+)", text, re.M))


def measure(found: Sequence[Server], load: Load, rounds: int, seconds: float) -> list[Result]:
    """All servers in turn with each number of connections, after a second of warm-up for each."""
    texts = read_texts()

    def asking(server: Server, connections: int) -> Way:
        return Way(
            server.name,
            str(connections),
            lambda: load(server.target, texts, connections, seconds),
            {"connections": connections},
        )

    for server in found:
        load(server.target, texts, CONNECTIONS[0], 1)
    ways = [asking(server, connections) for connections in CONNECTIONS for server in found]
    return alternate(ways, rounds, Steps())


def print_images(engine: Engine, cold: dict[str, float]) -> None:
    """Print size and, where it was built, time of each image."""
    print("| image | MB | built without cache |\n|---|---|---|")
    for name in _DOCKERFILES:
        size = engine.inspect(f"{IMAGE_PREFIX}{name}:0.1.0")["Size"]
        print(f"| {name} | {size / 1e6:.0f} | {f'{cold[name]:.0f} s' if name in cold else ''} |")


def print_starts(found: Sequence[Server], idle: Sequence[dict[str, int]]) -> None:
    """Print how long each server took to start, and its memory before and after the load."""
    print("\n| server | ready after | part | MiB idle | MiB after load |\n|---|---|---|---|---|")
    for server, before in zip(found, idle, strict=True):
        for part, read in server.memory.items():
            memory = f"{before[part] / 2**20:.0f} | {read() / 2**20:.0f}"
            print(f"| {server.name} | {server.start_s:.1f} s | {part} | {memory} |")


def print_rates(results: Sequence[Result]) -> None:
    """Print medians, and each server's rate as a part of that outside."""
    reference = {result.name: result.medians["rate"] for result in results if result.section == OUTSIDE}
    print("\n| server | connections | texts/s | ratio | p50 ms | p99 ms |\n|---|---|---|---|---|---|")
    for result in results:
        middle = result.medians
        ratio = middle["rate"] / reference[result.name]
        latencies = f"{middle['p50_ms']:.1f} | {middle['p99_ms']:.1f}"
        print(f"| {result.section} | {result.name} | {middle['rate']:.0f} | {ratio:.3f} | {latencies} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--cold", action="store_true", help="build the images without cache first; minutes")
    return parser.parse_args()


if __name__ == "__main__":
    main()

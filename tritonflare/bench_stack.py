"""The programs that the bench measures: Triton inside this program, gateways as processes beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedded.server import TritonServer
    from export.repository.inventory import Published
    from loadtest.bench.gpu import Gpus
    from loadtest.bench.grpc_client import GrpcTarget
    from loadtest.bench.run import MeasuredGateway, Plan, Stack

TOKEN = "bench"  # noqa: S105 (opens a loopback server that lives as long as the bench)
_READY_WITHIN_S = 60.0
_STOPS_WITHIN_S = 30.0
_ONE_CALL_A_TEXT = {"GATEWAY_MAX_CALL_TEXTS": "1", "GATEWAY_CALL_SLOTS": "512"}
"""No coalescing: as many calls at once as texts."""
_UNHURRIED = {"GATEWAY_MAX_QUEUE_S": "60", "GATEWAY_REQUEST_TIMEOUT_S": "120"}
"""128 long texts at once wait longer than the defaults allow, and other servers refuse none."""
NO_REFUSALS = _UNHURRIED | {"GATEWAY_MAX_REQUESTS_IN_FLIGHT": "16384"}
"""For more texts at once than the defaults allow, because a refusal is no answer to measure."""
_BOTH_PROTOCOLS = NO_REFUSALS | {"GATEWAY_GRPC_PORT": "0"}
_SERVING_GRPC = re.compile(r"serving gRPC on 127\.0\.0\.1:(\d+)")
_SERVING = re.compile(r"serving on http://127\.0\.0\.1:(\d+)/")


@contextmanager
def running_stack(plan: Plan, repository: Path, model: Published, work: Path) -> Iterator[Stack | None]:
    """Triton with the real and the null model, and a gateway for each number of workers."""
    from embedded.errors import EmbeddedError
    from embedded.server import TritonServer
    from export.triton_models.text_queue import length_groups
    from loadtest.bench.null_repository import NULL_NAME, ModelFolders, copy_with_null
    from loadtest.bench.run import Stack

    if not plan.serves:
        yield None
        return
    real = ModelFolders(model.ensemble, model.tokenizer, model.encoder)
    null = copy_with_null(repository, real, work / "models")
    names = (model.name, NULL_NAME)
    try:
        with TritonServer(work / "models", device=plan.device) as server, ExitStack() as programs:

            def gateway(name: str, count: int, settings: Mapping[str, str] | None = None) -> MeasuredGateway:
                log = work / f"{name}.log"
                return programs.enter_context(running_gateway(server, names, log, count, settings))

            yield Stack(
                triton=triton_target(server),
                triton_pid=server.pid,
                real=real,
                null=null,
                gateways=[
                    gateway(f"gateway_{count}", count, _UNHURRIED if plan.tokens else None)
                    for count in plan.workers
                ],
                one_call_each=gateway("single", 1, _ONE_CALL_A_TEXT) if "null" in plan.sections else None,
                both_protocols=(
                    gateway("protocols", 1, _BOTH_PROTOCOLS) if "protocols" in plan.sections else None
                ),
                # On a GPU groups are padded further than to their longest text, which nothing counts here.
                grouping=length_groups if server.device == "cpu" else None,
                gpus=serving_gpus(server, programs),
            )
    except EmbeddedError as error:
        raise click.ClickException(str(error)) from error


def triton_target(server: TritonServer) -> GrpcTarget:
    """Where Triton itself is asked."""
    from embedded.server import RESTRICTED_KEY
    from loadtest.bench.grpc_client import GrpcTarget

    return GrpcTarget(server.address, ((f"triton-grpc-protocol-{RESTRICTED_KEY}", server.secret),))


def serving_gpus(server: TritonServer, programs: ExitStack) -> Gpus | None:
    """The GPUs that Triton computes on, to be read until ``programs`` end."""
    from loadtest.bench.gpu import open_gpus
    from loadtest.bench.processes import ProcessTree

    gpus = programs.enter_context(open_gpus()) if server.device == "cuda" else None
    return None if gpus is None else gpus.of_processes(ProcessTree(server.pid).pids())


@contextmanager
def running_gateway(
    triton: TritonServer,
    models: Sequence[str],
    log: Path,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
    program: Sequence[str] = ("tritonflare",),
) -> Iterator[MeasuredGateway]:
    """``tritonflare gateway`` on a free loopback port, with its log in a file, as it runs for its users.

    Args:
        triton: the running Triton.
        models: public names of the real and of the null model; of one model alone, it stands for both.
        log: the file for its log.
        workers: how many processes share the port.
        settings: more of the gateway's environment.
        program: the module to run, and what precedes the subcommand.
    """
    from embedded.server import RESTRICTED_KEY
    from loadtest.bench.run import MeasuredGateway
    from loadtest.client import Target

    command = [sys.executable, "-m", *program, "gateway", "--host", "127.0.0.1", "--port", "0"]
    command += ["--triton-url", triton.address]
    if workers > 1:
        command += ["--workers", str(workers)]
    # Other variables of the environment are kept: they may be what is to be measured.
    environment = os.environ | {
        "GATEWAY_API_TOKENS": f"bench:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={triton.secret}",
    }
    # Several gateways cannot share one port, so only those that ask for gRPC have it.
    environment.pop("GATEWAY_GRPC_PORT", None)
    environment |= settings or {}
    with running_process(command, environment, log, _STOPS_WITHIN_S) as process:
        port = _wait_for_port(process, log, _SERVING)
        grpc = _wait_for_port(process, log, _SERVING_GRPC) if "GATEWAY_GRPC_PORT" in environment else None
        real, null = (
            Target(f"http://127.0.0.1:{port}", TOKEN, f"/client/v4/accounts/bench/ai/run/{name}")
            for name in (models[0], models[-1])
        )
        yield MeasuredGateway(workers, process.pid, real, null, _grpc_target(grpc))


@contextmanager
def running_process(
    command: Sequence[str], environment: Mapping[str, str], log: Path, stops_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes into a file; ended by SIGTERM, and killed if it takes longer than ``stops_s``."""
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(stops_s)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for_line(
    process: subprocess.Popen[bytes], log: Path, line: re.Pattern[str], within_s: float
) -> re.Match[str] | None:
    """The line of its log, as soon as it is there; None if the process or the time ends before."""
    end = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < end:
        if found := line.search(log.read_text(encoding="utf-8", errors="replace")):
            return found
        time.sleep(0.05)
    return None


def _grpc_target(port: int | None) -> GrpcTarget | None:
    from loadtest.bench.grpc_client import GrpcTarget

    if port is None:
        return None
    return GrpcTarget(f"127.0.0.1:{port}", (("authorization", f"Bearer {TOKEN}"),))


def numbers_set() -> dict[str, str]:
    """What the environment sets, for the record: the gateway's numbers and switches, glibc's tunables.

    Texts and secrets are left out.
    """
    from gateway.settings import Settings

    variables = {f"GATEWAY_{name}".upper(): field.annotation for name, field in Settings.model_fields.items()}
    numbers = [
        name
        for name, kind in variables.items()
        if kind in (bool, int, float) and name not in ("GATEWAY_PORT", "GATEWAY_GRPC_PORT")
    ]
    return {name: os.environ[name] for name in (*numbers, "GLIBC_TUNABLES") if name in os.environ}


def _wait_for_port(process: subprocess.Popen[bytes], log: Path, line: re.Pattern[str]) -> int:
    """The port in a line of the log, once both models can be asked."""
    if found := wait_for_line(process, log, line, _READY_WITHIN_S):
        return int(found[1])
    words = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise click.ClickException(f"the gateway did not start; its last words:\n{words}")

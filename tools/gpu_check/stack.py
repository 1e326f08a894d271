"""The servers that are asked: Triton and gateways apart from each other, or all as one program."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from embedded.server import TritonServer
from loadtest.bench.null_repository import NULL_NAME, ModelFolders, copy_with_null, link_model
from loadtest.bench.run import MeasuredGateway
from loadtest.client import Target
from tools.gpu_check.job import CheckFailed, Job, Settings
from tools.gpu_check.models import PRECISIONS, Budget, budget_models, public_name, served_models
from tritonflare.bench_stack import NO_REFUSALS, TOKEN, running_gateway, running_process, wait_for_line

_SERVING = re.compile(r"(?:Ready: |serving on )(http://127\.0\.0\.1:\d+)/client/v4")
DEADLINE_S = 10.0
"""Of a request to `tritonflare serve`."""
_STOPS_S = 20.0
_SPARE_S = 3.0
"""Of the check's time, to say that nothing started."""
_LAST_CHARACTERS = 4000


@dataclass(frozen=True)
class Stack:
    """Gateways before one Triton, by their number of processes."""

    gateways: Mapping[int, MeasuredGateway]

    def target(self, precision: str, workers: int = 1, budget: Budget | None = None) -> Target:
        """Where a precision is asked, with the usual or another budget."""
        return _named(self.gateways[workers].real, public_name(precision, budget))

    def null(self, workers: int = 1) -> Target:
        """Where the null model is asked."""
        return _named(self.gateways[workers].real, NULL_NAME)


def _named(target: Target, model: str) -> Target:
    return replace(target, path=f"/client/v4/accounts/bench/ai/run/{model}")


@contextmanager
def running_stack(job: Job, workers: Sequence[int] = (1,), budgets: bool = False) -> Iterator[Stack]:
    """Both precisions on the device, behind a gateway for each number of processes.

    With ``budgets`` also the null model, and FP16 with the other budgets of groups.
    """
    settings = job.settings
    folder = settings.work / ("stack_of_budgets" if budgets else "stack")
    names = [public_name(precision) for precision in served_models(settings)]
    if budgets:
        names += [NULL_NAME, *(public_name(PRECISIONS[0], budget) for budget in budget_models(settings))]
    _link_all(settings, folder, budgets)
    triton = TritonServer(folder, ready_timeout_s=job.left_s, device=settings.device)
    with triton as server, ExitStack() as programs:
        gateways = {}
        for count in workers:
            log = settings.work / f"gateway_{count}.log"
            gateways[count] = programs.enter_context(running_gateway(server, names, log, count, NO_REFUSALS))
        yield Stack(gateways)


def _link_all(settings: Settings, folder: Path, budgets: bool) -> None:
    """A repository of links, once for all checks; with ``budgets`` also a null twin of the first model."""
    if folder.exists():
        return
    models = [(settings.repository, model.published) for model in served_models(settings).values()]
    if budgets:
        first = models[0][1]
        parts = ModelFolders(first.ensemble, first.tokenizer, first.encoder)
        copy_with_null(settings.repository, parts, folder)
        models += [(settings.budgets, model) for model in budget_models(settings).values()]
    for repository, model in models:
        # All share the tokenizer's folder.
        missing = [name for name in model.folders if not (folder / name).exists()]
        link_model(repository, missing, folder)


@dataclass(frozen=True)
class Program:
    """A running ``tritonflare serve``: its process id, and where its first model is asked."""

    pid: int
    target: Target


@contextmanager
def running_program(job: Job, precision: str) -> Iterator[Program]:
    """``tritonflare serve`` of one precision, which restarts a Triton that has lost a stub.

    Raises:
        CheckFailed: it did not start.
    """
    settings = job.settings
    repository = settings.work / f"program_{precision}"
    if not repository.exists():
        link_model(settings.repository, served_models(settings)[precision].published.folders, repository)
    command = [sys.executable, "-m", "tritonflare", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--device", settings.device, "--repository", str(repository)]
    environment = os.environ | {
        "GATEWAY_ACCESS_LOG_SHARE": "0",
        "GATEWAY_API_TOKENS": f"bench:{TOKEN}",
        "GATEWAY_REQUEST_TIMEOUT_S": f"{DEADLINE_S:g}",
    }
    environment.pop("GATEWAY_GRPC_PORT", None)
    log = settings.work / "serve.log"
    with running_process(command, environment, log, _STOPS_S) as process:
        found = wait_for_line(process, log, _SERVING, job.left_s - _SPARE_S)
        if found is None:
            click.echo(log.read_text(encoding="utf-8", errors="replace")[-_LAST_CHARACTERS:], err=True)
            raise CheckFailed("`tritonflare serve` did not start; this check's log has its last words.")
        yield Program(process.pid, _named(Target(found[1], TOKEN, ""), public_name(precision)))

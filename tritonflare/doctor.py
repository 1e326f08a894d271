"""``tritonflare doctor``: checks this machine for the embedded Triton, and for a model to serve."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonflare.paths import CHECKPOINT, HOME, REPOSITORY, runnable

if TYPE_CHECKING:
    from embedded.host import HostFinding
    from gateway.settings import ConfigurationError, Settings

_BUNDLED = "cf-huggingface-distilbert-sst-2-int8"
_ALIVE = b'{"status":"alive"}'
_LIVEZ_TIMEOUT_S = 2.0


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, show_default=True)
def doctor(repository: Path) -> None:
    """Check this machine, and print the remedy for each problem.

    Exits 1 if something has to be remedied before `tritonflare serve` can work.
    """
    from embedded import host

    results = [*host.findings(), *_models(repository), *_ports()]
    for finding in results:
        mark = click.style("ok    ", fg="green") if finding.ok else click.style("REMEDY", fg="red")
        click.echo(f"{mark}  {finding.name}: {finding.found}")
        if not finding.ok:
            click.echo(f"        {runnable(finding.remedy)}")
    sys.exit(0 if all(finding.ok for finding in results) else 1)


def _models(repository: Path) -> list[HostFinding]:
    """Check the repository, and the GPU if one of its models needs it.

    A missing export is no problem where `make serve` exports by itself.
    """
    from embedded import gpu
    from embedded.device import CUDA
    from embedded.errors import EmbeddedError, NotExportedError
    from embedded.host import HostFinding
    from embedded.repository import check_repository

    name = "model repository"
    try:
        models = check_repository(repository)
        named = (f"{model.name} (reranker)" if model.is_reranker else model.name for model in models)
        found = HostFinding(name, ", ".join(named))
        needed = any(model.target == CUDA for model in models)
        return [found, *(gpu.findings() if needed else [gpu.summary()])]
    except (EmbeddedError, OSError) as error:
        if isinstance(error, NotExportedError) and _exported_by_make(repository):
            found = HostFinding(name, "nothing exported yet; `make serve` will export the bundled model")
            return [found, gpu.summary()]
        return [HostFinding(name, "not servable", str(error)), gpu.summary()]


def _exported_by_make(repository: Path) -> bool:
    """Whether `make serve` exports the bundled model into this repository, which holds no model yet."""
    here = (HOME / "Makefile").is_file() and CHECKPOINT.is_dir() and repository == REPOSITORY
    weights = (f"{_BUNDLED}_{step}_*/[1-9]*/model.onnx" for step in ("encoder", "joined"))
    return here and not any(path for pattern in weights for path in repository.glob(pattern))


def _ports() -> list[HostFinding]:
    """Check that the gateway's ports are free, or that a tritonflare already serves there."""
    from embedded.host import HostFinding
    from gateway.ports import bind_grpc, bind_http
    from gateway.settings import ConfigurationError, load_settings

    try:
        settings = load_settings()
    except ConfigurationError as error:
        return [HostFinding("settings", "not valid", str(error))]
    address = f"{settings.host}:{settings.port}"
    with contextlib.ExitStack() as bound:
        running = False
        try:
            # Stays bound for now: gRPC cannot have the same port.
            bound.enter_context(bind_http(settings))
            findings = [HostFinding("port", f"{address} is free")]
        except ConfigurationError as error:
            running = _is_in_use(error) and _tritonflare_answers(settings)
            used = HostFinding("port", f"{address}, in use by a tritonflare")
            findings = [used if running else _refused("port", error)]
        if settings.grpc_port is None:
            return findings
        address = f"{settings.host}:{settings.grpc_port}"
        try:
            bind_grpc(settings, settings.grpc_port).close()
            findings.append(HostFinding("gRPC port", f"{address} is free"))
        except ConfigurationError as error:
            # Of gRPC alone it cannot be known without a token whose it is.
            used = HostFinding("gRPC port", f"{address}, in use while a tritonflare runs")
            findings.append(used if running and _is_in_use(error) else _refused("gRPC port", error))
    return findings


def _is_in_use(error: ConfigurationError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def _refused(name: str, error: ConfigurationError) -> HostFinding:
    from embedded.host import HostFinding

    return HostFinding(name, "not free" if _is_in_use(error) else "not valid", str(error))


def _tritonflare_answers(settings: Settings) -> bool:
    """Whether ``GET /livez`` at the gateway's address is answered as a gateway answers it."""
    connection: http.client.HTTPConnection
    if settings.tls_certificate is None:
        connection = http.client.HTTPConnection(settings.host, settings.port, timeout=_LIVEZ_TIMEOUT_S)
    else:
        context = ssl.create_default_context()
        # The certificate may be for another address, and nothing secret is sent.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            settings.host, settings.port, timeout=_LIVEZ_TIMEOUT_S, context=context
        )
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read(len(_ALIVE) + 1) == _ALIVE
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

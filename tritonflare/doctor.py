"""``tritonflare doctor``: can this machine run the embedded Triton, and is there a model to serve?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonflare.paths import CHECKPOINT, REPOSITORY, runnable

if TYPE_CHECKING:
    from embedded.host import Finding

_BUNDLED = "cf-huggingface-distilbert-sst-2-int8"


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, show_default=True)
def doctor(repository: Path) -> None:
    """Check this machine and say what to do about each problem.

    Exits 1 if something has to be mended before `tritonflare serve` can work.
    """
    from embedded import host

    results = [*host.findings(), _models(repository), _port()]
    for finding in results:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("MEND", fg="red")
        click.echo(f"{mark}  {finding.name}: {finding.found}")
        if not finding.ok:
            click.echo(f"      {runnable(finding.remedy)}")
    sys.exit(0 if all(finding.ok for finding in results) else 1)


def _models(repository: Path) -> Finding:
    """What would be served; that nothing was exported yet is no fault where `make serve` does it."""
    from embedded.errors import EmbeddedError, NotExportedError
    from embedded.host import Finding
    from embedded.repository import check_repository

    name = "model repository"
    try:
        return Finding(name, ", ".join(model.name for model in check_repository(repository)))
    except (EmbeddedError, OSError) as error:
        if isinstance(error, NotExportedError) and _exported_by_make(repository):
            return Finding(name, "nothing exported yet; `make serve` will export the bundled model")
        return Finding(name, "not servable", str(error))


def _exported_by_make(repository: Path) -> bool:
    """Whether `make serve` exports the bundled model into this repository, which holds no model yet."""
    here = Path("Makefile").is_file() and CHECKPOINT.is_dir() and repository == REPOSITORY
    return here and not any(repository.glob(f"{_BUNDLED}_encoder_*/[1-9]*/model.onnx"))


def _port() -> Finding:
    """Whether the gateway's address is free."""
    from embedded.host import Finding
    from gateway.server.bind import bind
    from gateway.settings import ConfigurationError, load_settings

    try:
        settings = load_settings()
        bind(settings.host, settings.port).close()
    except ConfigurationError as error:
        return Finding("port", "not free", str(error))
    return Finding("port", f"{settings.host}:{settings.port} is free")

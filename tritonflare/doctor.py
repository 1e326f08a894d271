"""``tritonflare doctor``: can this machine run the embedded Triton, and is there a model to serve?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonflare.paths import REPOSITORY

if TYPE_CHECKING:
    from embedded.host import Finding


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=REPOSITORY, show_default=True)
def doctor(repository: Path) -> None:
    """Check this machine and say what to do about each problem.

    Exits 1 if something has to be mended before `tritonflare serve` can work.
    """
    from embedded import host
    from embedded.errors import EmbeddedError
    from embedded.repository import check_repository

    results = host.findings()
    try:
        found = ", ".join(model.name for model in check_repository(repository))
        results.append(host.Finding("model repository", found))
    except (EmbeddedError, OSError) as error:
        results.append(host.Finding("model repository", "not servable", str(error)))
    results.append(_port())
    for finding in results:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("MEND", fg="red")
        click.echo(f"{mark}  {finding.name}: {finding.found}")
        if not finding.ok:
            click.echo(f"      {finding.remedy}")
    sys.exit(0 if all(finding.ok for finding in results) else 1)


def _port() -> Finding:
    """Whether the gateway's address is free."""
    from embedded.host import Finding
    from gateway.serving import bind
    from gateway.settings import ConfigurationError, load_settings

    try:
        settings = load_settings()
        bind(settings.host, settings.port).close()
    except ConfigurationError as error:
        return Finding("port", "not free", str(error))
    return Finding("port", f"{settings.host}:{settings.port} is free")

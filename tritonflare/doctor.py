"""``tritonflare doctor``: can this machine run the embedded Triton, and is there a model to serve?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tritonflare.paths import REPOSITORY


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
    for finding in results:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("MEND", fg="red")
        click.echo(f"{mark}  {finding.name}: {finding.found}")
        if not finding.ok:
            click.echo(f"      {finding.remedy}")
    sys.exit(0 if all(finding.ok for finding in results) else 1)

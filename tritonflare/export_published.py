"""``tritonflare export --verify``, ``--rollback`` and ``--remove``: what is published already."""

from __future__ import annotations

import sys
from pathlib import Path

import click

# The exporter cannot know which server reads the repository: a volume may be mounted on another machine.
SERVE_HELP = (
    "`tritonflare serve --watch` serves the change by itself, `tritonflare serve` on SIGHUP or at its next "
    "start. A Triton that runs elsewhere (Compose, Kubernetes) must be restarted."
)


def verify(repository: Path) -> None:
    """Print what differs from what was published, and exit with 3 if anything does.

    Raises:
        ExportError: there is no such repository.
    """
    from export.repository.inventory import read_inventory, verify_repository
    from export.repository.kept import other_versions, verify_kept

    findings = [*verify_repository(repository), *verify_kept(repository)]
    for finding in findings:
        click.echo(finding, err=True)
    if findings:
        sys.exit(3)
    found = read_inventory(repository)
    kept = sum(len(other_versions(repository, model)) for model in found)
    models = f"{len(found)} published {'model' if len(found) == 1 else 'models'}"
    if kept:
        models += f" and {kept} kept {'version' if kept == 1 else 'versions'}"
    click.echo(f"{models}, all files intact.")


def roll_back(repository: Path, name: str, number: int | None) -> None:
    """Publish a kept version again.

    Raises:
        ExportError: see `rollback_model`.
    """
    from export.repository.publish import rollback_model

    before, now = rollback_model(repository, name, number)
    click.echo(f"Published version {now} of {name} again in {repository}; version {before} is kept.")
    click.echo("--if-changed leaves it alone until its source or options change.")
    click.echo(SERVE_HELP)


def remove(repository: Path, artefacts: Path, name: str) -> None:
    """Remove a model with everything that its exports made.

    Raises:
        ExportError: no model has this name, or it could not be removed.
    """
    from export.repository.inventory import read_inventory
    from export.repository.removal import remove_everything

    freed = remove_everything(repository, artefacts, name)
    click.echo(
        f"Removed {name} from {repository}, its kept versions and its artefacts: {freed / 1e6:.1f} MB."
    )
    if read_inventory(repository):
        click.echo(SERVE_HELP)
    else:
        click.echo("No model is left. A running server still serves the last one until you stop it.")

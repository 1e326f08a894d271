"""``tritonflare token create``, and the token that ``serve`` makes for a newcomer."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from tritonflare.paths import TOKENS


@click.group()
def token() -> None:
    """Make API tokens. Only their SHA-256 is ever written down."""


@token.command()
@click.option("--account", default="*", show_default=True, help="Account id that it opens; * is any.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=TOKENS,
    show_default=True,
    help="File of hashes to add to; give it to the gateway as GATEWAY_TOKENS_FILE.",
)
def create(account: str, file: Path) -> None:
    """Print a new token and add its hash to FILE. It cannot be shown again."""
    if account != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+", account):
        raise click.BadParameter(
            "use letters, digits, '-' and '_', or * for any account", param_hint="--account"
        )
    from gateway.tokens import new_token

    secret = new_token()
    remember(file, account, secret)
    click.echo(secret)
    click.echo(f"Its hash is in {file.resolve()}; a running server reads it when it starts again.", err=True)


def remember(file: Path, account: str, secret: str) -> None:
    """Append ``account:hash`` of a token to ``file``, which only its owner can read."""
    from gateway.tokens import hash_token

    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as lines:
        lines.write(f"{account}:{hash_token(secret)}\n")

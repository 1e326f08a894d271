"""``tritonflare token``: creates, lists and revokes tokens; also stores the one that ``serve`` creates."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonflare.paths import TOKENS, runnable

if TYPE_CHECKING:
    from gateway.access.tokens_file import TokenEntry

_SHOWN = 12
"""Digits of a hash that are its id in the list."""
_LEAST_ID = 6
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_RELOADED = "a running server reloads this file within about a second"

_file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=TOKENS,
    show_default=True,
    help="File of hashes; give it to the gateway as GATEWAY_TOKENS_FILE.",
)


@click.group()
def token() -> None:
    """Create, list and revoke API tokens. Only their SHA-256 is stored."""


def _expiry(value: str) -> float:
    """Parse a duration (30d, 12h) or a time (2026-12-31T00:00:00Z) as seconds since 1970."""
    from gateway.access.tokens_file import from_utc

    span = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", value)
    if span:
        return float(math.ceil(time.time()) + int(span[1]) * _UNITS[span[2]])
    try:
        expires = from_utc(value)
    except ValueError:
        raise click.BadParameter("use 90m, 12h, 30d, 8w, or a time like 2026-12-31T00:00:00Z") from None
    if expires <= time.time():
        raise click.BadParameter("that time is in the past")
    return expires


@token.command()
@click.option("--account", default="*", show_default=True, help="Account id that it is valid for; * is any.")
@click.option(
    "--expires", type=_expiry, metavar="WHEN", help="30d, 12h, 2026-12-31T00:00:00Z [default: never]."
)
@_file_option
def create(account: str, expires: float | None, file: Path) -> None:
    """Print a new token and add its hash to FILE. It cannot be shown again."""
    if account != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+", account):
        raise click.BadParameter(
            "use letters, digits, '-' and '_', or * for any account", param_hint="--account"
        )
    from gateway.access.tokens import hash_token, new_token

    secret = new_token()
    with _writing(file):
        store_token(file, account, secret, expires)
    click.echo(secret)
    click.echo(
        f"Its id is {hash_token(secret)[:_SHOWN]}, its hash is in {file.resolve()}; {_RELOADED}.", err=True
    )


@token.command(name="list")
@_file_option
def list_tokens(file: Path) -> None:
    """Show id, account and expiry of each token in FILE."""
    from gateway.access.tokens_file import utc

    entries = _read(file, may_be_missing=True)
    if not entries:
        option = "" if file == TOKENS else f" --file {shlex.quote(str(file))}"
        click.echo(runnable(f"no tokens yet; `tritonflare token create{option}` creates one"), err=True)
    now = time.time()
    for entry in entries:
        until = "never expires" if math.isinf(entry.expires) else f"expires {utc(entry.expires)}"
        if entry.expires <= now:
            until = f"expired {utc(entry.expires)}"
        click.echo(f"{entry.digest[:_SHOWN]}  {entry.account}  {until}")


@token.command()
@click.argument("token_id", metavar="ID")
@_file_option
def revoke(token_id: str, file: Path) -> None:
    """Remove the token with this ID (see list) from FILE, for all of its accounts."""
    from gateway.access.tokens_file import remove_digests

    if len(token_id) < _LEAST_ID:
        raise click.BadParameter(f"give at least {_LEAST_ID} digits", param_hint="ID")
    found = {entry.digest for entry in _read(file) if entry.digest.startswith(token_id.lower())}
    if len(found) != 1:
        raise click.ClickException("no token has this id" if not found else "several tokens have this id")
    with _writing(file):
        remove_digests(file, found)
    click.echo(f"Revoked; {_RELOADED}.", err=True)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{file} was not changed: {error.strerror}.") from error


def _read(file: Path, *, may_be_missing: bool = False) -> list[TokenEntry]:
    from gateway.access.tokens_file import read_tokens_file
    from gateway.settings import ConfigurationError

    try:
        return read_tokens_file(file)
    except ConfigurationError as error:
        if may_be_missing and isinstance(error.__cause__, FileNotFoundError):
            return []
        raise


def store_token(file: Path, account: str, secret: str, expires: float | None = None) -> None:
    """Add the hash of a token to ``file``, which only its owner can read.

    Raises:
        OSError: the file was not changed.
    """
    from gateway.access.tokens import hash_token
    from gateway.access.tokens_file import TokenEntry, append_entry

    append_entry(file, TokenEntry(account, hash_token(secret), math.inf if expires is None else expires))

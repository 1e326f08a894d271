"""``tritonflare token``: creates, lists and revokes tokens; also stores the one that ``serve`` creates."""

from __future__ import annotations

import json
import math
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonflare.paths import TOKENS, runnable
from tritonflare.tables import print_table

if TYPE_CHECKING:
    from gateway.access.tokens_file import TokenEntry

_LEAST_ID = 6
_LONGEST_NAME = 64
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_RELOADED = "a running server reloads this file within about a second"

_file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=TOKENS,
    show_default=True,
    help="File of hashes; give it to the gateway as GATEWAY_TOKENS_FILE.",
)


_uses_option = click.option(
    "--uses",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="GATEWAY_TOKEN_USES_FILE",
    show_envvar=True,
    help="File in which the gateway notes the last use of each token  [default: FILE.used]",
)


@click.group()
def token() -> None:
    """Create, list and revoke API tokens. Only their SHA-256 is stored."""


def _expiry(value: str) -> float:
    """Parse a duration (30d, 12h), a date (its first moment in UTC) or a time as seconds since 1970."""
    from gateway.access.tokens_file import from_utc

    span = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", value)
    if span:
        return float(math.ceil(time.time()) + int(span[1]) * _UNITS[span[2]])
    try:
        expires = from_utc(f"{value}T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else value)
    except ValueError:
        raise click.BadParameter(
            "use 90m, 12h, 30d, 8w, a date like 2027-01-01 or a time like 2026-12-31T18:00:00Z"
        ) from None
    if expires <= time.time():
        raise click.BadParameter("that time is in the past")
    return expires


def _name(value: str) -> str:
    """Check a name of a token."""
    name = value.strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise click.BadParameter(f"use 1 to {_LONGEST_NAME} printable characters")
    return name


@token.command()
@click.option("--name", type=_name, metavar="NAME", help="What it is for; shown in the list.")
@click.option("--account", default="*", show_default=True, help="Account id that it is valid for; * is any.")
@click.option(
    "--expires",
    type=_expiry,
    metavar="WHEN",
    help="30d, 12h, 2027-01-01 (its beginning in UTC), 2026-12-31T18:00:00Z [default: never].",
)
@_file_option
def create(name: str | None, account: str, expires: float | None, file: Path) -> None:
    """Print a new token and add its hash to FILE. It cannot be shown again."""
    if account != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+", account):
        raise click.BadParameter(
            "use letters, digits, '-' and '_', or * for any account", param_hint="--account"
        )
    from gateway.access.tokens import hash_token, new_token, short_id
    from gateway.access.tokens_file import utc

    secret = new_token()
    with _writing(file):
        store_token(file, account, secret, expires, name or "")
    click.echo(secret)
    until = "" if expires is None else f" It expires {utc(expires)}."
    click.echo(
        f"Its id is {short_id(hash_token(secret))}, its hash is in {file.resolve()}; {_RELOADED}.{until}",
        err=True,
    )


@token.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@_file_option
@_uses_option
def list_tokens(as_json: bool, file: Path, uses: Path | None) -> None:
    """Show id, name, account, expiry and last use of each token in FILE.

    A use is noted at most a minute after it happens.
    """
    from gateway.access.token_uses import TokenUses, UsesError, uses_file
    from gateway.access.tokens_file import utc

    entries = _read(file, may_be_missing=True)
    noted = TokenUses(uses or uses_file(file))
    try:
        used = noted.read()
    except UsesError:
        used = None
    rows = [_described(entry, used) for entry in entries]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    elif rows:
        now = utc(time.time())
        print_table(
            {
                "id": [row["id"] or "" for row in rows],
                "name": [row["name"] or "" for row in rows],
                "last used": [row["last_used"] or ("unknown" if used is None else "never") for row in rows],
                "expires": [_shown_expiry(row["expires"], now) for row in rows],
                "account": [row["account"] or "" for row in rows],
            }
        )
    if not entries:
        option = "" if file == TOKENS else f" --file {shlex.quote(str(file))}"
        click.echo(runnable(f"no tokens yet; `tritonflare token create{option}` creates one"), err=True)
    elif used is None and not noted.is_writable():
        click.echo(f"The last use is not noted: {noted.file} cannot be written.", err=True)


def _described(entry: TokenEntry, used: dict[str, float] | None) -> dict[str, str | None]:
    """Return what the list says of a token; times as the API writes them, None for never or unknown."""
    from gateway.access.tokens import short_id
    from gateway.access.tokens_file import utc

    last_used = (used or {}).get(short_id(entry.digest))
    return {
        "id": short_id(entry.digest),
        "name": entry.name or None,
        "account": entry.account,
        "expires": None if math.isinf(entry.expires) else utc(entry.expires),
        "last_used": None if last_used is None else utc(last_used),
    }


def _shown_expiry(expires: str | None, now: str) -> str:
    if expires is None:
        return "never"
    return f"{expires} (expired)" if expires <= now else expires


@token.command()
@click.argument("token_id", metavar="ID")
@_file_option
@_uses_option
def revoke(token_id: str, file: Path, uses: Path | None) -> None:
    """Remove the token with this ID or name (see list) from FILE, for all of its accounts."""
    from gateway.access.token_uses import TokenUses, UsesError, uses_file
    from gateway.access.tokens import short_id
    from gateway.access.tokens_file import remove_digests

    entries = _read(file)
    found = {entry.digest for entry in entries if token_id and entry.name == token_id}
    if not found and len(token_id) < _LEAST_ID:
        raise click.BadParameter(f"give at least {_LEAST_ID} digits, or a name", param_hint="ID")
    found |= {entry.digest for entry in entries if entry.digest.startswith(token_id.lower())}
    if len(found) != 1:
        raise click.ClickException(
            "no token has this id or name" if not found else "several tokens have this id or name"
        )
    with _writing(file):
        remove_digests(file, found)
    with suppress(UsesError):  # what is left are an id that nobody has, and a time
        TokenUses(uses or uses_file(file)).forget(map(short_id, found))
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


def store_token(file: Path, account: str, secret: str, expires: float | None = None, name: str = "") -> None:
    """Add the hash of a token to ``file``, which only its owner can read.

    Raises:
        OSError: the file was not changed.
    """
    from gateway.access.tokens import hash_token
    from gateway.access.tokens_file import TokenEntry, append_entry

    entry = TokenEntry(account, hash_token(secret), math.inf if expires is None else expires, name)
    append_entry(file, entry)
